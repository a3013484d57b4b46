"""The journal: entries in a database table that only grows at its end.

Whoever appends says after which entry. The sequence number is the table's key, so of two writers who
saw the same last entry one succeeds and the other learns that it was late. Nothing else is a lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from foreword.artifact import Digest
from foreword.errors import ArtifactError, Conflict, NotFound, RegistryError, StorageError
from foreword.registry.database import Database
from foreword.registry.entries import GENESIS, By, Entry, Event, Head

_Row = sa.Row[*tuple[Any, ...]]

_TABLE = sa.Table(
    "journal",
    sa.MetaData(),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("previous", sa.String(64)),
    sa.Column("hash", sa.String(64)),
    sa.Column("time", sa.String(20)),
    sa.Column("actor", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("kind", sa.String(40)),
    sa.Column("name", sa.String(127)),
    sa.Column("body", sa.Text),
)
_PAGE = 1_000
# In the order in which `Entry.read` takes them.
_COLUMNS = ("seq", "previous", "time", "actor", "reason", "kind", "body", "hash")
_FROM = (
    sa.select(*(_TABLE.c[name] for name in _COLUMNS))
    .where(_TABLE.c.seq >= sa.bindparam("seq"))
    .order_by(_TABLE.c.seq)
    .limit(_PAGE)
)
_OF_NAME = _FROM.where(_TABLE.c.name == sa.bindparam("name"))
_INSERT = _TABLE.insert()


class Journal:
    """Reads and appends. Keeps nothing in memory."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, head: Head, event: Event, by: By) -> Entry:
        """Record an event right after `head`; when this returns, it is on disk.

        Raises:
            Conflict: somebody appended first (`registry.raced`); nothing was recorded.
            StorageError: the database refused. If the connection died it may have been recorded all
                the same; every command finds that out when it is given again.
        """
        entry = Entry.after(head, event, by)
        row = _row(entry)
        try:
            self._database.run(lambda connection: connection.execute(_INSERT, row))
        except IntegrityError as e:
            # Ours, if a first try was committed and its answer was lost.
            if not self._holds(entry):
                raise Conflict(
                    f"somebody else wrote entry {entry.seq} first; look again, then decide again",
                    code="registry.raced",
                ) from e
        except StorageError:
            if not self._holds(entry):
                raise
        return entry

    def take_over(self, entries: Sequence[Entry]) -> None:
        """Record all entries of another journal, as they are, in this one, which has none.

        Raises:
            Conflict: it has some (`registry.raced`); nothing was recorded.
            StorageError: the database refused; nothing was recorded, or the answer was lost.
        """
        rows = [_row(entry) for entry in entries]
        if not rows:
            return
        try:
            self._database.run_whole(lambda connection: connection.execute(_INSERT, rows))
        except IntegrityError as e:
            if not self._holds(entries[-1]):  # as in append
                raise Conflict(
                    "somebody else wrote to the journal first; it has to be empty",
                    code="registry.raced",
                ) from e

    def read(self, after: Head = GENESIS) -> Iterator[Entry]:
        """Every entry behind `after`, which is checked to be still there, oldest first.

        Raises:
            RegistryError: the chain is broken, or `after` is not in it (`registry.chain`).
            StorageError: the database could not be read.
        """
        head = after
        while True:
            rows = self._rows(_FROM, seq=max(head.seq, 1))
            following = _behind(head, rows)
            for row in following:
                entry = Entry.read(head, *row)
                head = entry.head
                yield entry
            if len(rows) < _PAGE:
                return

    def read_name(self, name: str, after: int = 0) -> Iterator[Entry]:
        """Entries about one name with a larger number than `after`, oldest first.

        Each is checked by itself; that they are all of them, only `read` can tell.

        Raises:
            RegistryError: an entry was changed (`registry.chain`).
            StorageError: the database could not be read.
        """
        while True:
            rows = self._rows(_OF_NAME, seq=after + 1, name=name)
            for row in rows:
                yield _alone(row)
                after = row.seq
            if len(rows) < _PAGE:
                return

    def entry(self, seq: int) -> Entry:
        """One entry.

        Raises:
            NotFound: there is none with this number (`registry.entry_unknown`).
            RegistryError: it was changed (`registry.chain`).
        """
        rows = self._rows(_FROM.limit(1), seq=seq)
        if not rows or rows[0].seq != seq:
            raise NotFound(f"the journal has no entry {seq}", code="registry.entry_unknown")
        return _alone(rows[0])

    def _rows(self, query: sa.Select[Any], **values: int | str) -> list[_Row]:
        return self._database.run(
            lambda connection: list(connection.execute(query, values).fetchall())
        )

    def _holds(self, entry: Entry) -> bool:
        rows = self._rows(_FROM.limit(1), seq=entry.seq)
        return bool(rows) and rows[0].hash == entry.hash.hex


def _behind(head: Head, rows: list[_Row]) -> list[_Row]:
    """The rows after the head's own, which is the first one."""
    if head == GENESIS:
        return rows
    if not rows or rows[0].seq != head.seq or rows[0].hash != head.hash.hex:
        raise RegistryError(
            f"entry {head.seq}, which was read before, is gone or another one stands in its place: the "
            "journal was replaced; restore it from a backup, or start again from what it is now",
            code="registry.chain",
        )
    return rows[1:]


def _alone(row: _Row) -> Entry:
    try:
        head = Head(row.seq - 1, Digest(row.previous))
    except ArtifactError as e:
        raise RegistryError(f"entry {row.seq} was changed ({e})", code="registry.chain") from e
    return Entry.read(head, *row)


def _row(entry: Entry) -> dict[str, object]:
    return {
        "seq": entry.seq,
        "previous": entry.previous.hex,
        "hash": entry.hash.hex,
        "time": entry.time,
        "actor": entry.actor,
        "reason": entry.reason,
        "kind": entry.kind,
        "name": entry.event.name,
        "body": entry.body,
    }
