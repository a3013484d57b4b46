"""From system calls to what they did to a disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tests.reliability.calls import Call
from tests.reliability.disk import (
    Acknowledged,
    Change,
    Disk,
    Enter,
    Leave,
    Resize,
    Step,
    Sync,
    Write,
)


class Recorder:
    """Follows a trace on a model of the disk, beginning with what a directory holds now."""

    def __init__(self, root: Path) -> None:
        self.blank = Disk.read(root)
        """The disk as it was, with the files and directories that come to be: empty and nameless."""
        self._disk = self.blank.copy()
        self._root = root
        self._inodes: dict[int, int] = {}
        self._offsets: dict[int, int] = {}

    def steps(self, calls: Sequence[Call]) -> Iterator[Step]:
        """What each call that succeeded did.

        Raises:
            ValueError: a call did something the model does not know.
        """
        for call in calls:
            if call.result is None or call.result < 0:
                continue
            for step in self._steps(call, call.result):
                if isinstance(step, Change):
                    self._disk.apply(step)
                yield step

    def _steps(self, call: Call, result: int) -> Iterator[Step]:
        match call.name:
            case "write" if call.reports:
                yield Acknowledged()
            case "openat":
                yield from self._open(call, result)
            case "close":
                self._inodes.pop(call.file().number, None)
            case "write" | "pwrite64" | "lseek" | "ftruncate" | "fsync" | "fdatasync":
                if call.file().number in self._inodes:
                    yield from self._on_file(call, call.file().number, result)
            case "mkdir":
                directory, name = self._place(call.text(0))
                yield Enter(directory, name, self._new(is_directory=True))
            case "unlink":
                yield Leave(*self._place(call.text(0)))
            case "linkat":
                yield Enter(*self._place(call.text(3)), self._find(call.text(1)))
            case other:
                raise ValueError(f"the model knows no {other}{call.arguments}")

    def _open(self, call: Call, number: int) -> Iterator[Step]:
        path = PurePosixPath(call.text(1))
        if not path.is_relative_to(self._root):
            return
        if call.flags(2) & {"O_TRUNC", "O_APPEND"}:
            raise ValueError(f"the model knows no {call.flags(2)}")
        inode = self._disk.find(path.relative_to(self._root))
        if inode is None:
            inode = self._new(is_directory=False)
            yield Enter(*self._place(call.text(1)), inode)
        self._inodes[number], self._offsets[number] = inode, 0

    def _on_file(self, call: Call, number: int, result: int) -> Iterator[Step]:
        inode = self._inodes[number]
        match call.name:
            case "write":
                yield Write(inode, self._offsets[number], call.data(1)[:result])
                self._offsets[number] += result
            case "pwrite64":
                yield Write(inode, call.number(3), call.data(1)[:result])
            case "lseek":
                self._offsets[number] = result
            case "ftruncate":
                yield Resize(inode, call.number(1))
            case "fsync" | "fdatasync":
                yield Sync(inode)

    def _new(self, *, is_directory: bool) -> int:
        number = self._disk.new_number()
        for disk in (self._disk, self.blank):
            if is_directory:
                disk.directories[number] = {}
            else:
                disk.files[number] = bytearray()
        return number

    def _place(self, path: str) -> tuple[int, str]:
        """The directory a path lies in, and its name there."""
        return self._find(str(PurePosixPath(path).parent)), PurePosixPath(path).name

    def _find(self, path: str) -> int:
        number = self._disk.find(PurePosixPath(path).relative_to(self._root))
        if number is None:
            raise ValueError(f"the model has no {path}")
        return number
