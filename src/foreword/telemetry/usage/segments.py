"""Files that only grow, and are folded when they are full.

    usage-00000007.jsonl        closed: one line, one row a key
    usage-00000008.open.jsonl   open: one line more at each flush, synced

A line counts if it is whole. Closing writes the sum of an open file under its closed name, by rename, and
then removes the open one; while both exist the closed one counts. So a crash at any moment loses no line
that was written and counts none twice.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from foreword.artifact.disk import not_written, sync_directory, write_synced
from foreword.errors import StorageError
from foreword.telemetry.usage.rows import Rows, decode, encode, merged

MAX_OPEN = 16 << 20
_NAME = re.compile(r"usage-(\d{8})(\.open)?\.jsonl")


class Segments:
    """The one writer of a directory.

    Raises:
        StorageError: another process writes there (`storage.busy`), or the disk refuses.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock: int | None = _locked(directory)
            self._file: int | None = None
            self._recover()
        except OSError as e:
            raise not_written(directory, e) from e

    def append(self, rows: Rows) -> None:
        """Add a line and sync it.

        Raises:
            StorageError: the disk refused; nothing of the line is there.
        """
        try:
            file = self._open()
            size = os.fstat(file).st_size
            try:
                _write_all(file, encode(rows))
                os.fsync(file)
            except OSError:
                self._take_back(file, size)
                raise
            full = os.fstat(file).st_size > MAX_OPEN
        except OSError as e:
            raise not_written(self._directory, e) from e
        if full:
            self.rotate()

    def rotate(self) -> None:
        """Close the open file.

        Raises:
            StorageError: the disk refused; all lines are still there.
        """
        if self._file is None:
            return
        os.close(self._file)
        self._file = None
        try:
            self._recover()
        except OSError as e:
            raise not_written(self._directory, e) from e

    def close(self) -> None:
        """Let another process write here. Idempotent."""
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._lock = None

    def _open(self) -> int:
        if self._file is None:
            numbers = [number for number, _, _ in _files(self._directory)]
            path = self._directory / f"usage-{max(numbers, default=0) + 1:08d}.open.jsonl"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o600)
            sync_directory(self._directory)
        return self._file

    def _take_back(self, file: int, size: int) -> None:
        try:
            os.ftruncate(file, size)
        except OSError:  # then nothing is ever put behind the torn line
            os.close(file)
            self._file = None

    def _recover(self) -> None:
        """Finish what was begun, and fold every open file. Nobody has one open."""
        for leftover in self._directory.glob("usage-*.tmp"):
            leftover.unlink()
        found = _files(self._directory)
        closed = {number for number, is_open, _ in found if not is_open}
        for number, is_open, path in found:
            if is_open and (number in closed or self._fold(number, path)):
                path.unlink()

    def _fold(self, number: int, path: Path) -> bool:
        """False if a line in it is damaged: such a file is left as it is, for people to look at."""
        lines, damaged = _lines(path.read_bytes())
        if damaged:
            return False
        if lines:
            temporary = self._directory / f"usage-{number:08d}.tmp"
            write_synced(temporary, encode(merged(lines)))
            temporary.rename(self._directory / f"usage-{number:08d}.jsonl")
            sync_directory(self._directory)
        return True


def read_segments(directory: Path) -> Iterator[tuple[list[Rows], int]]:
    """Of each file its lines and how many of them are damaged. Anybody may read at any time.

    Raises:
        StorageError: the directory or a file cannot be read.
    """
    try:
        names = {(number, is_open) for number, is_open, _ in _files(directory)}
        for number in sorted({number for number, _ in names}):
            yield _lines(_either(directory, number))
    except OSError as e:
        raise StorageError(f"{directory} cannot be read ({e.strerror})", code="storage.read") from e


def _either(directory: Path, number: int) -> bytes:
    """The closed file if there is one. In this order: a file is closed before the open one goes."""
    closed, opened = (directory / f"usage-{number:08d}{kind}.jsonl" for kind in ("", ".open"))
    for path in (closed, opened, closed):
        with suppress(FileNotFoundError):
            return path.read_bytes()
    return b""  # an open file without a line


def _lines(data: bytes) -> tuple[list[Rows], int]:
    """Rows of every whole line; the last is not whole while it is being written, or if that failed."""
    found = [decode(line) for line in data.split(b"\n")[:-1]]
    lines = [rows for rows in found if rows is not None]
    return lines, len(found) - len(lines)


def _files(directory: Path) -> list[tuple[int, bool, Path]]:
    found = []
    for path in directory.iterdir():
        if matched := _NAME.fullmatch(path.name):
            found.append((int(matched[1]), bool(matched[2]), path))
    return sorted(found)


def _locked(directory: Path) -> int:
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        os.close(lock)
        raise StorageError(
            f"another process counts usage in {directory}; give each its own directory",
            code="storage.busy",
        ) from e
    return lock


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
