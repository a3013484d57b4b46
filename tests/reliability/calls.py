"""System calls as `strace -xx -y` writes them down."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+|\?)(.*)")
_WORD = re.compile(
    r'"(?P<text>(?:\\x[0-9a-f]{2})*)"(?P<cut>\.\.\.)?'
    r"|(?P<fd>\d+|AT_FDCWD)<(?P<path>[^>]*)>(?:\(deleted\))?"
    r"|(?P<plain>[^,\s\"<>]+)"
)


@dataclass(frozen=True)
class File:
    """An open file as an argument: its number, and the path it was opened by."""

    number: int
    """-100 for the working directory."""
    path: str


Argument = bytes | File | str
"""Text or data, an open file, or a number or flags as they are written."""


@dataclass(frozen=True)
class Call:
    """One system call that was traced."""

    name: str
    place: int
    """Among the calls of this name, from 1: what `when=` of an injection counts."""
    arguments: tuple[Argument, ...]
    result: int | None
    """None if it never returned."""
    injected: bool = False
    """strace gave the result instead of the system."""

    def file(self, index: int = 0) -> File:
        argument = self.arguments[index]
        return argument if isinstance(argument, File) else self._other(index)

    def data(self, index: int) -> bytes:
        argument = self.arguments[index]
        return argument if isinstance(argument, bytes) else self._other(index)

    def text(self, index: int) -> str:
        return self.data(index).decode()

    def number(self, index: int) -> int:
        argument = self.arguments[index]
        return int(argument, 0) if isinstance(argument, str) else self._other(index)

    def flags(self, index: int) -> set[str]:
        argument = self.arguments[index]
        return set(argument.split("|")) if isinstance(argument, str) else self._other(index)

    def _other(self, index: int) -> NoReturn:
        raise ValueError(f"argument {index} of {self.name} is {self.arguments[index]!r}")

    @property
    def changes(self) -> bool:
        """False for a file that is opened and has to be there already."""
        return self.name != "openat" or "O_CREAT" in self.flags(2)

    @property
    def reports(self) -> bool:
        """True if it writes to the process that listens, which no power cut and no full disk reaches."""
        return self.name == "write" and self.file().path.startswith(("pipe:", "socket:", "UNIX"))


def read_calls(trace: str) -> tuple[Call, ...]:
    """Every call of a trace of one process, in order."""
    return tuple(_read(trace))


def _read(trace: str) -> Iterator[Call]:
    counts: Counter[str] = Counter()
    for line in trace.splitlines():
        found = _LINE.fullmatch(line)
        if not found:
            if "+++" in line or "---" in line:  # an end or a signal
                continue
            raise ValueError(f"not a line of strace: {line[:200]!r}")
        _, name, arguments, result, rest = found.groups()
        counts[name] += 1
        yield Call(
            name,
            counts[name],
            tuple(_argument(word) for word in _WORD.finditer(arguments)),
            None if result == "?" else int(result),
            "(INJECTED)" in rest,
        )


def _argument(word: re.Match[str]) -> Argument:
    if word["cut"]:
        raise ValueError("the trace was cut; trace with a larger -s")
    if word["text"] is not None:
        return _decoded(word["text"])
    if word["fd"]:
        number = -100 if word["fd"] == "AT_FDCWD" else int(word["fd"])
        return File(number, _decoded(word["path"]).decode())
    return word["plain"]


def _decoded(text: str) -> bytes:
    """strace writes paths and data as \\x41, names of pipes and sockets also as they are."""
    pieces = re.split(r"\\x([0-9a-f]{2})", text)
    return b"".join(
        bytes.fromhex(piece) if place % 2 else piece.encode() for place, piece in enumerate(pieces)
    )
