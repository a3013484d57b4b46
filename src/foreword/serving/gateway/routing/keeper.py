"""Writes the known good table to its file, on a thread of its own, and reads it at a start.

A file that is whole is put in the place of the last one by rename, so there is always one to read.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from foreword.artifact.disk import not_written, read_bounded, sync_directory
from foreword.errors import ArtifactError, StorageError
from foreword.serving.gateway.routing.known_good import KnownGood, from_bytes, to_lines

_MOST_BYTES = 1 << 30
_SHARE = 20
"""Writing takes at most one in so many seconds, however often something changes."""


class Keeper:
    """One file, which belongs to one process.

    `keep` never waits; of what is kept while a write is under way, the last is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        """Why the last write failed; empty if it did not."""
        self._next: KnownGood | None = None
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="foreword-known-good", daemon=True)

    def read(self) -> KnownGood | None:
        """What was kept by an earlier process; None if there is nothing.

        Raises:
            ArtifactError: the file is damaged or of another version.
            StorageError: the disk refused.
        """
        try:
            return from_bytes(read_bounded(self.path, _MOST_BYTES))
        except ArtifactError as e:
            if e.code == "artifact.missing":
                return None
            raise

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float) -> None:
        """Write what is left to write, if the disk does not take longer than `patience` seconds."""
        with self._changed:
            self._stopping.set()
            self._changed.notify()
        self._thread.join(patience)

    def keep(self, known: KnownGood) -> None:
        """Write this soon, instead of what was to be written before."""
        with self._changed:
            self._next = known
            self._changed.notify()

    def _run(self) -> None:
        while (known := self._take()) is not None:
            began = time.monotonic()
            try:
                write(self.path, known)
                self.problem = ""
            except StorageError as e:
                self.problem = str(e)
            self._stopping.wait((time.monotonic() - began) * _SHARE)

    def _take(self) -> KnownGood | None:
        with self._changed:
            while self._next is None and not self._stopping.is_set():
                self._changed.wait()
            known, self._next = self._next, None
            return known


def write(path: Path, known: KnownGood) -> None:
    """Put a table in the place of the file, whole or not at all.

    Raises:
        StorageError: the disk refused; the file is as it was.
    """
    draft = path.with_name(f".{path.name}.draft")  # one that was cut short is written over
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.writelines(to_lines(known))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync_directory(path.parent)
    except OSError as e:
        raise not_written(path, e) from e
