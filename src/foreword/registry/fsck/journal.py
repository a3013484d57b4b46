"""The journal: every entry follows the one before, can be read, and is found under its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from foreword.errors import ForewordError, RegistryError
from foreword.registry.database import Database
from foreword.registry.entries import Entry, Head
from foreword.registry.fsck.finding import Finding, broken
from foreword.registry.journal import Journal
from foreword.registry.state import State, fold

_PAGE = 500
_RESTORE = "stop all writers, restore a backup, and publish again what came after it"
_MENDS = {
    "registry.chain": ("chain", _RESTORE),
    "registry.entry": (
        "entry",
        "install the Foreword that wrote it; if none did, restore a backup",
    ),
}


@dataclass(frozen=True)
class Reading:
    """The journal as far as it could be read."""

    entries: tuple[Entry, ...]
    state: State
    stop: Finding | None
    """Why it could not be read further; then nobody can say what is needed and what is not."""


def read(database: Database) -> Reading:
    """Every entry up to the first that does not hold."""
    entries: list[Entry] = []
    stop = None
    try:
        for entry in Journal(database).read():
            entries.append(entry)
    except ForewordError as e:
        stop = _stop(len(entries) + 1, e)
    state, refused = _folded(entries)
    if refused:
        stop = _stop(state.head.seq + 1, refused)
    return Reading(tuple(entries), state, stop)


def names(database: Database, entries: Sequence[Entry]) -> Iterator[Finding]:
    """The column by which the entries of a name are found; no hash covers it, as entries say it too."""
    said = {entry.seq: entry.event.name for entry in entries}
    for seq, name in database.run(_names):
        if seq < 1:
            yield broken(
                "row", f"entry {seq}", "entries begin at 1, so nobody ever reads it", _RESTORE
            )
        elif seq in said and said[seq] != name:
            column = f"its column says {str(name)[:127]!r}, it is about {said[seq]!r}"
            yield broken("row", f"entry {seq}", column, _RESTORE)


def missing(reading: Reading, known: Head) -> Iterator[Finding]:
    """An entry that somebody wrote down, and that is not there: the end of a chain can be cut off."""
    if reading.stop and known.seq > len(reading.entries):
        return  # it may stand behind what could be read
    if all(entry.head != known for entry in reading.entries):
        yield broken(
            "cut",
            f"entry {known.seq}",
            f"there was an entry {known.seq} with hash {known.hash}, which this journal does not have",
            f"it is an older copy, or its end was cut off: {_RESTORE}",
        )


def _folded(entries: Sequence[Entry]) -> tuple[State, RegistryError | None]:
    """The state of as many entries as make sense, page by page because a fold copies the state."""
    state = State()
    for start in range(0, len(entries), _PAGE):
        page = entries[start : start + _PAGE]
        try:
            state = fold(state, page)
        except RegistryError:
            return _folded_singly(state, page)
    return state, None


def _folded_singly(state: State, page: Sequence[Entry]) -> tuple[State, RegistryError | None]:
    for entry in page:
        try:
            state = fold(state, [entry])
        except RegistryError as e:
            return state, e
    return state, None


def _stop(seq: int, error: ForewordError) -> Finding:
    code, mend = _MENDS.get(
        error.code,
        ("database", "see that the database runs and may be read; else restore a backup"),
    )
    return broken(code, f"entry {seq}", str(error), mend)


def _names(connection: sa.Connection) -> list[tuple[int, object]]:
    rows = connection.exec_driver_sql("SELECT seq, name FROM journal ORDER BY seq")
    return [(int(row[0]), row[1]) for row in rows]
