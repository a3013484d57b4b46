"""The access table on disk: `access.json`, which many processes read and several may change.

A change is made under the directory's lock, appears by rename after `fsync`, and is told in
`access.log`: one JSON line with who, when and what is different. A change is acknowledged after its
line is on disk; a crash in between leaves a change whose generation the log skips.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from foreword.artifact.disk import not_written
from foreword.config import foreword_home
from foreword.errors import ArtifactError, ConfigError, Conflict, ForewordError, StorageError
from foreword.registry.entries import By
from foreword.serving.gateway.access.form import (
    MAX_BYTES,
    table_from_bytes,
    table_to_bytes,
    table_to_json,
)
from foreword.serving.gateway.access.table import AccessTable
from foreword.signing import files
from foreword.signing.times import stamp

FILE = "access.json"
LOG = "access.log"
LOOK_EVERY = 0.25
"""Seconds between two looks at the file."""
LOOK_FIRST = 0.75
"""Seconds without a look after which a request waits for one."""

_Signature = tuple[int, int, int] | None
"""Inode, time of change and size; None: there is no file."""


@dataclass(frozen=True)
class AccessState:
    """How the table is doing, for the readiness check."""

    generation: int
    read: datetime
    """When the table in use was read."""
    code: str = ""
    """Why the file that is there now is not in use; empty if it is."""
    detail: str = ""


class AccessStore:
    """The table in a directory, by default `FOREWORD_HOME/gateway`.

    `table()` may be called from any thread, for every request: it looks at the file up to four times
    a second, and reads it when it has changed. A file that cannot be used changes nothing but `state()`.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Raises:
            ConfigError: the file that is there is damaged (`access.form`, `access.value`), or gone
                while its log is there (`access.missing`).
            StorageError: the disk refused.
        """
        self.directory = Path(directory) if directory else foreword_home() / "gateway"
        self.path = self.directory / FILE
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = clock()
        self._seen: _Signature = None
        self._table = AccessTable()
        self._state = AccessState(0, datetime.now(UTC))
        self._load()

    def table(self) -> AccessTable:
        """What holds now. Nobody gets a table that was changed more than a second ago."""
        now = self._clock()
        since = now - self._looked
        if since >= LOOK_EVERY:
            self._looked = now
            if since >= LOOK_FIRST:
                self._look()
            elif (
                self._changed()
            ):  # reading a thousand keys takes some 20 ms; a request does not wait
                threading.Thread(target=self._look, name="foreword-access", daemon=True).start()
        return self._table

    def state(self) -> AccessState:
        self.table()
        return self._state

    def change(
        self,
        fn: Callable[[AccessTable], AccessTable],
        by: By,
        *,
        expect: int | None = None,
    ) -> AccessTable:
        """Apply a change to the table on disk; two changes at once both happen, one after the other.

        `fn` sees the newest table and may refuse by raising; what it gives back gets the next
        generation. If nothing is different, nothing is written. The change holds in this process
        when this returns, and in the others within a second.

        Raises:
            Conflict: the table is not at generation `expect` any more (`access.conflict`).
            ConfigError: what is on disk is damaged, so that it cannot be changed.
            StorageError: the disk refused.
        """
        self._make_directory()
        with files.locked(self.directory), self._lock:
            before = self._load()
            if expect is not None and expect != before.generation:
                raise Conflict(
                    f"the access table is at generation {before.generation}, not {expect}: somebody "
                    "changed it; look again, then decide again",
                    code="access.conflict",
                )
            after = replace(fn(before), generation=before.generation)
            if after != before:
                data = table_to_bytes(replace(after, generation=before.generation + 1))
                after = table_from_bytes(data)  # what is written can be read, and means the same
                files.replace(self.path, data, 0o600)
                self._load()
                self._tell(before, after, by)
            return after

    def _changed(self) -> bool:
        try:
            return self._signature() != self._seen
        except StorageError:
            return True  # reading it says what is the matter

    def _look(self) -> None:
        """Read the file if it has changed; keep what is known if it cannot be used."""
        if not self._lock.acquire(blocking=False):
            return  # somebody else is reading it, or changing it
        try:
            if self._changed():
                self._load()
        except ForewordError:
            pass  # `_load` has kept the state; what was known goes on
        finally:
            self._lock.release()

    def _load(self) -> AccessTable:
        """Read the file and use it, or say in the state why not."""
        try:
            seen = self._signature()  # before it is read: a change in between is read once more
            try:
                table = self._read()
            except ConfigError:
                self._seen = seen  # as long as it is the same file, it stays damaged
                raise
        except ForewordError as e:
            self._state = replace(self._state, code=e.code, detail=str(e))
            raise
        self._seen, self._table = seen, table
        self._state = AccessState(table.generation, datetime.now(UTC))
        return table

    def _read(self) -> AccessTable:
        try:
            return table_from_bytes(files.read(self.path, MAX_BYTES))
        except ArtifactError as e:
            if e.code != "artifact.missing":
                raise ConfigError(f"{e}; expected an access table", code="access.form") from e
        if (self.directory / LOG).exists():
            raise ConfigError(
                f"{self.path} is gone, and {LOG} beside it says that it was there; restore it from a "
                "backup, or move the log away to begin anew",
                code="access.missing",
            )
        return AccessTable()

    def _signature(self) -> _Signature:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as e:
            raise StorageError(
                f"{self.path} cannot be looked at ({e.strerror})", code="storage.read"
            ) from e
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise not_written(self.directory, e) from e

    def _tell(self, before: AccessTable, after: AccessTable, by: By) -> None:
        line = json.dumps(
            {
                "time": stamp(by.now),
                "actor": by.actor,
                "reason": by.reason,
                "generation": after.generation,
                "changed": differences(before, after),
            },
            ensure_ascii=False,
        )
        path = self.directory / LOG
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, 0o600), "ab") as file:
                file.write(line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as e:
            raise StorageError(
                f"the change is made, but {path} could not be written ({e.strerror})",
                code="storage.write",
            ) from e


def differences(before: AccessTable, after: AccessTable) -> dict[str, object]:
    """What is different, by section and entry: its new value without hashes, None if it is gone."""
    old, new = table_to_json(before), table_to_json(after)
    found = {
        f"{section}.{key}": new[section].get(key)
        for section in new
        for key in sorted({*old[section], *new[section]})
        if old[section].get(key) != new[section].get(key)
    }
    return {path: _shown(value) for path, value in found.items()}


def _shown(value: dict[str, object] | None) -> object:
    return value and {name: each for name, each in value.items() if name != "sha256"}
