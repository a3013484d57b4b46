"""What may be on a disk after a power cut.

A write, a new size, a new or lost name is *certain* once its owner was synced after it: for bytes and
size the file, for a name the directory. What is not certain when the power goes may be there or not, in any
order. This is the model of ALICE (Pillai et al., OSDI 2014) with the strictest choice: to sync a file makes
none of its names certain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from random import Random

ROOT = 0

_SECTOR = 512
_AT_RANDOM = 3
"""Random choices of what is lost, for each moment at which there is a choice."""


@dataclass(frozen=True)
class Change:
    """One of the four things that can happen to a file or directory."""

    owner: int
    """Which one: it has to be synced to make the change certain."""


@dataclass(frozen=True)
class Write(Change):
    """Bytes of a file."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class Resize(Change):
    """A file's size."""

    size: int


@dataclass(frozen=True)
class Enter(Change):
    """A name in a directory, and what it names."""

    name: str
    inode: int


@dataclass(frozen=True)
class Leave(Change):
    """A name that is gone from a directory."""

    name: str


@dataclass(frozen=True)
class Sync:
    """Everything that happened to a file or directory is certain from now on."""

    owner: int


@dataclass(frozen=True)
class Acknowledged:
    """Whoever asked was told that it is done."""


Step = Change | Sync | Acknowledged


@dataclass
class Disk:
    """Files and directories by number; a name is an entry in a directory and nothing else."""

    files: dict[int, bytearray] = field(default_factory=dict)
    directories: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})

    @classmethod
    def read(cls, root: Path) -> Disk:
        """The disk that has a real directory as its root."""
        disk = cls()
        disk._read(root, ROOT)
        return disk

    def _read(self, path: Path, number: int) -> None:
        for entry in sorted(path.iterdir()):
            new = self.new_number()
            self.directories[number][entry.name] = new
            if entry.is_dir():
                self.directories[new] = {}
                self._read(entry, new)
            else:
                self.files[new] = bytearray(entry.read_bytes())

    def copy(self) -> Disk:
        return Disk(
            {number: bytearray(data) for number, data in self.files.items()},
            {number: dict(names) for number, names in self.directories.items()},
        )

    def new_number(self) -> int:
        return max((*self.files, *self.directories)) + 1

    def find(self, path: PurePosixPath) -> int | None:
        """The number that a path leads to."""
        number: int | None = ROOT
        for part in path.parts:
            number = self.directories.get(number, {}).get(part) if number is not None else None
        return number

    def apply(self, change: Change) -> None:
        match change:
            case Write(owner, offset, data):
                self._grow(owner, offset)
                self.files[owner][offset : offset + len(data)] = data
            case Resize(owner, size):
                self._grow(owner, size)
                del self.files[owner][size:]
            case Enter(owner, name, inode):
                self.directories[owner][name] = inode
            case Leave(owner, name):
                self.directories[owner].pop(name, None)

    def _grow(self, number: int, size: int) -> None:
        file = self.files[number]
        file.extend(bytes(max(0, size - len(file))))

    def contents(self) -> Mapping[str, bytes | None]:
        """What can be reached from the root: bytes by path, None for a directory."""
        return dict(self._walk(ROOT, PurePosixPath()))

    def _walk(self, number: int, path: PurePosixPath) -> Iterator[tuple[str, bytes | None]]:
        for name, inner in sorted(self.directories[number].items()):
            if inner in self.directories:
                yield str(path / name), None
                yield from self._walk(inner, path / name)
            else:
                yield str(path / name), bytes(self.files[inner])


def write_out(contents: Mapping[str, bytes | None], root: Path) -> None:
    """Make what a disk holds into real files."""
    root.mkdir()
    for name, data in contents.items():  # a directory comes before what is in it
        if data is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(data)


@dataclass(frozen=True)
class Remains:
    """One thing the disk may hold after a power cut."""

    what: str
    contents: Mapping[str, bytes | None]
    acknowledged: bool


def power_cuts(before: Disk, steps: Sequence[Step]) -> Iterator[Remains]:
    """Every moment at which the power may go, and for each what may be left, each content once."""
    seen, rng = set(), Random(0)
    for cut in range(len(steps) + 1):
        done = steps[:cut]
        acknowledged = any(isinstance(step, Acknowledged) for step in done)
        for what, changes in _survivors(done, rng):
            disk = before.copy()
            for change in changes:
                disk.apply(change)
            contents = disk.contents()
            key = (acknowledged, tuple(contents.items()))
            if key not in seen:
                seen.add(key)
                yield Remains(f"cut after step {cut}, {what}", contents, acknowledged)


def _survivors(done: Sequence[Step], rng: Random) -> Iterator[tuple[str, list[Change]]]:
    """Which changes are on disk: all; the certain ones; of the others all but one, or only one, or one
    of them by half; and some at random."""
    changes = {place: step for place, step in enumerate(done) if isinstance(step, Change)}
    synced = {step.owner: place for place, step in enumerate(done) if isinstance(step, Sync)}
    loose = {place for place, change in changes.items() if synced.get(change.owner, -1) < place}

    def without(lost: set[int]) -> list[Change]:
        return [change for place, change in changes.items() if place not in lost]

    yield "all is there", without(set())
    yield "only what was synced is there", without(loose)
    for place in sorted(loose):
        yield f"step {place} is lost", without({place})
        yield f"beyond what was synced only step {place} is there", without(loose - {place})
        if torn := _torn(changes[place]):
            yield f"step {place} is half there", list({**changes, place: torn}.values())
    for _ in range(_AT_RANDOM if len(loose) > 2 else 0):
        lost = {place for place in sorted(loose) if rng.random() < 0.5}
        yield f"the steps {sorted(lost)} are lost", without(lost)


def _torn(change: Change) -> Write | None:
    """The first half of a write, in whole sectors; None if it is too short to be torn."""
    if not isinstance(change, Write) or len(change.data) < 2 * _SECTOR:
        return None
    half = len(change.data) // _SECTOR // 2 * _SECTOR
    return Write(change.owner, change.offset, change.data[:half])
