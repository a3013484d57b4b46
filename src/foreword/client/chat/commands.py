"""What begins with a slash: read here, done by whoever holds the session."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from difflib import get_close_matches

HELP = {
    "/prefix NAME": "talk to another prefix, version (NAME@1.2.3), alias or base; without NAME list them",
    "/next": "talk to the next one; the same as the Tab key",
    "/side A B": "ask two, side by side; without names no more",
    "/reset": "forget what was said",
    "/help": "this",
    "/quit": "leave; the same as Ctrl-D",
}
_WORDS = {text.partition(" ")[0].removeprefix("/"): text for text in HELP}
_COUNTS = {"prefix": (0, 1), "side": (0, 2)}


@dataclass(frozen=True)
class Command:
    word: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A command that is none, and why."""

    reason: str


def read_command(line: str) -> Command | Unreadable | None:
    """None if a line is a message. Two slashes at its beginning stand for one that is meant."""
    if not line.startswith("/") or line.startswith("//"):
        return None
    try:
        word, *names = shlex.split(line[1:])
    except ValueError:
        return Unreadable("a command is a word and names, such as /prefix acme/support; see /help")
    if word not in _WORDS:
        close = get_close_matches(word, _WORDS, n=1)
        hint = f"did you mean /{close[0]}?" if close else "see /help"
        return Unreadable(f"there is no /{word}; {hint}")
    if len(names) not in _COUNTS.get(word, (0,)):
        return Unreadable(f"expected {_WORDS[word]}, got {len(names)} names")
    return Command(word, tuple(names))
