"""The journal only grows at its end, in both databases, and notices when it did not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from foreword.artifact import Digest
from foreword.errors import Conflict, NotFound, RegistryError, StorageError
from foreword.registry.database import Database
from foreword.registry.entries import GENESIS, Approved, BaseWithdrawn, Entry, Head
from foreword.registry.journal import Journal
from tests.registry.samples import NAME, by

FIRST, SECOND, THIRD = (Approved(NAME, Digest.of(bytes([i]))) for i in range(3))


@pytest.fixture
def journal(database: Database) -> Journal:
    return Journal(database)


def execute(database: Database, *statements: str) -> None:
    """Statements as somebody with the database's password would give them."""

    def work(connection: sa.Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    database.run(work)


def unguarded(database: Database, statement: str) -> None:
    """The same, by somebody who takes the triggers away first."""
    if database.is_sqlite:
        names = ("journal_no_update", "journal_no_delete", "journal_next")
        execute(database, *(f"DROP TRIGGER IF EXISTS {name}" for name in names), statement)
    else:
        execute(database, "ALTER TABLE journal DISABLE TRIGGER ALL", statement)


def fill(journal: Journal, count: int = 3) -> list[Entry]:
    head, entries = GENESIS, []
    for i in range(count):
        entries.append(journal.append(head, Approved(NAME, Digest.of(bytes([i]))), by(seconds=i)))
        head = entries[-1].head
    return entries


def test_entries_are_read_back_in_order(journal: Journal) -> None:
    assert list(journal.read()) == []
    entries = fill(journal)
    assert list(journal.read()) == entries
    assert list(journal.read(entries[1].head)) == entries[2:]
    assert list(journal.read(entries[2].head)) == []
    assert [journal.entry(entry.seq) for entry in entries] == entries


def test_more_than_a_page_is_read_whole(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    from foreword.registry import journal as module

    monkeypatch.setattr(module, "_PAGE", 3)
    for name in ("_FROM", "_OF_NAME"):
        monkeypatch.setattr(module, name, getattr(module, name).limit(3))
    entries = fill(journal, 8)
    assert list(journal.read()) == entries
    for after in entries:
        assert list(journal.read(after.head)) == entries[after.seq :]
    assert list(journal.read_name(NAME)) == entries


def test_entries_of_one_name_are_found(journal: Journal) -> None:
    mine = journal.append(GENESIS, FIRST, by())
    other = journal.append(mine.head, Approved("acme/other", FIRST.digest), by())
    base = journal.append(other.head, BaseWithdrawn("base"), by())
    last = journal.append(base.head, SECOND, by())
    assert list(journal.read_name(NAME)) == [mine, last]
    assert list(journal.read_name(NAME, after=1)) == [last]
    assert list(journal.read_name("nobody")) == []


def test_of_two_writers_one_is_told(journal: Journal) -> None:
    first = journal.append(GENESIS, FIRST, by())
    with pytest.raises(Conflict) as caught:
        journal.append(GENESIS, SECOND, by())
    assert caught.value.code == "registry.raced"
    assert list(journal.read()) == [first]


def test_nothing_is_appended_behind_a_gap_or_a_stranger(journal: Journal) -> None:
    first = journal.append(GENESIS, FIRST, by())
    for head in (Head(7, first.hash), Head(1, Digest.of(b"another journal"))):
        with pytest.raises(Conflict):
            journal.append(head, SECOND, by())
    assert list(journal.read()) == [first]


def test_many_writers_lose_no_entry(journal: Journal) -> None:
    def write(who: int) -> None:
        for i in range(10):
            while True:
                head = Head(0, GENESIS.hash)
                for entry in journal.read():
                    head = entry.head
                with contextlib.suppress(Conflict):
                    journal.append(head, Approved(NAME, Digest.of(bytes([who, i]))), by(f"w{who}"))
                    break

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = list(journal.read())
    assert [entry.seq for entry in entries] == list(range(1, 41))
    assert len({entry.event.digest for entry in entries}) == 40  # type: ignore[union-attr]


# Append-only.

CHANGES = [
    "UPDATE journal SET actor = 'eve' WHERE seq = 2",
    "UPDATE journal SET seq = 9 WHERE seq = 3",
    "DELETE FROM journal WHERE seq = 3",
    "DELETE FROM journal",
]


@pytest.mark.parametrize("statement", CHANGES)
def test_the_database_refuses_to_change_what_is_written(
    journal: Journal, database: Database, statement: str
) -> None:
    entries = fill(journal)
    with pytest.raises((StorageError, IntegrityError), match="append-only"):
        execute(database, statement)
    assert list(journal.read()) == entries


def test_replacing_and_emptying_are_refused_too(journal: Journal, database: Database) -> None:
    entries = fill(journal)
    statement = "TRUNCATE journal"
    if database.is_sqlite:
        statement = "INSERT OR REPLACE INTO journal SELECT * FROM journal WHERE seq = 3"
    with pytest.raises((StorageError, IntegrityError)):
        execute(database, statement)
    assert list(journal.read()) == entries


@pytest.mark.parametrize(
    "statement",
    [
        *CHANGES[:2],
        "DELETE FROM journal WHERE seq = 2",
        "UPDATE journal SET hash = 'x' WHERE seq = 3",
        "UPDATE journal SET previous = 'x' WHERE seq = 2",
        "UPDATE journal SET time = '2020-01-01T00:00:00Z' WHERE seq = 1",
        "UPDATE journal SET body = body || ' ' WHERE seq = 1",
    ],
)
def test_who_gets_around_that_breaks_the_chain(
    journal: Journal, database: Database, statement: str
) -> None:
    fill(journal)
    unguarded(database, statement)
    with pytest.raises(RegistryError) as caught:
        list(journal.read())
    assert caught.value.code == "registry.chain"


def test_a_changed_line_is_noticed_when_it_is_read_alone(
    journal: Journal, database: Database
) -> None:
    fill(journal)
    unguarded(database, "UPDATE journal SET previous = 'x' WHERE seq = 1")
    execute(database, "UPDATE journal SET reason = 'x' WHERE seq = 2")
    for seq in (1, 2):
        with pytest.raises(RegistryError) as caught:
            journal.entry(seq)
        assert caught.value.code == "registry.chain"
    with pytest.raises(RegistryError):
        list(journal.read_name(NAME))


def test_who_has_read_more_notices_that_the_end_is_gone(
    journal: Journal, database: Database
) -> None:
    entries = fill(journal)
    unguarded(database, "DELETE FROM journal WHERE seq = 3")
    assert list(journal.read()) == entries[:2]  # by itself it looks whole
    with pytest.raises(RegistryError, match="gone"):
        list(journal.read(entries[2].head))


def test_who_has_read_it_notices_that_it_is_another_journal(
    journal: Journal, database: Database
) -> None:
    entries = fill(journal)
    unguarded(database, "DELETE FROM journal")
    for i in range(4):
        head = list(journal.read())[-1].head if i else GENESIS
        journal.append(head, FIRST, by("eve"))
    with pytest.raises(RegistryError) as caught:
        list(journal.read(entries[1].head))
    assert caught.value.code == "registry.chain"


def test_an_entry_that_is_not_there(journal: Journal) -> None:
    fill(journal, 1)
    for seq in (0, 2, -1):
        with pytest.raises(NotFound):
            journal.entry(seq)


# A commit whose answer was lost.


class Flaky(Database):
    """A database whose connection dies right after, or right before, some statements."""

    plan: list[str]

    def run(self, work: Callable[[sa.Connection], Any]) -> Any:
        def unreliable(connection: sa.Connection) -> Any:
            fate = self.plan.pop(0) if self.plan else "well"
            if fate == "before":
                raise self._dead(connection)
            result = work(connection)
            if fate == "after":
                raise self._dead(connection)
            return result

        return super().run(unreliable)

    def _dead(self, connection: sa.Connection) -> DBAPIError:
        connection.invalidate()
        return sa.exc.OperationalError("", {}, Exception("lost"), connection_invalidated=True)


@pytest.mark.parametrize("plan", [["after"], ["before"], ["before", "after"], ["after", "after"]])
def test_an_answer_that_was_lost_is_looked_up(
    database: Database, database_url: str, plan: list[str]
) -> None:
    with contextlib.closing(Flaky(database_url)) as flaky:
        flaky.plan = plan
        entry = Journal(flaky).append(GENESIS, FIRST, by())
        assert list(Journal(database).read()) == [entry]


def test_three_lost_answers_are_looked_up_as_well(database: Database, database_url: str) -> None:
    with contextlib.closing(Flaky(database_url)) as flaky:
        flaky.plan = ["after"] * 3
        entry = Journal(flaky).append(GENESIS, FIRST, by())
        assert list(Journal(database).read()) == [entry]


def test_a_database_that_stays_away_is_a_storage_error(
    database: Database, database_url: str
) -> None:
    with contextlib.closing(Flaky(database_url)) as flaky:
        flaky.plan = ["before"] * 6
        with pytest.raises(StorageError):
            Journal(flaky).append(GENESIS, FIRST, by())
        assert list(Journal(database).read()) == []


def test_losing_the_answer_and_the_race_is_a_lost_race(
    database: Database, database_url: str
) -> None:
    with contextlib.closing(Flaky(database_url)) as flaky:
        flaky.plan = ["before"]
        theirs = Journal(database).append(GENESIS, SECOND, by("bob"))
        with pytest.raises(Conflict):
            Journal(flaky).append(GENESIS, FIRST, by())
        assert list(Journal(database).read()) == [theirs]
