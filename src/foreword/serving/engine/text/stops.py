"""Find stop strings in text that arrives piece by piece.

Nothing that may belong to a stop string is let out, and nothing else is held back. Where stop
strings overlap, the one that starts first wins, however the text was cut into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scanned:
    """Text that may be shown, and whether a stop string came right after it."""

    text: str
    hit: bool


class StopScanner:
    """One answer's text on its way out. After a hit it must not be used any more."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._patterns = [_Pattern(stop) for stop in stops]
        self._held = ""
        self._end = 0
        """Characters seen so far; `_held` are the last of them."""
        self._found: int | None = None
        """Start of the first stop string that is complete."""

    def push(self, text: str) -> Scanned:
        """Take in the next piece.

        A hit is reported once no stop string that started earlier can still be completed.
        """
        if not self._patterns:
            return Scanned(text, hit=False)
        for i, character in enumerate(text, self._end + 1):
            self._advance(i, character)
            if self._found is not None and self._found <= self._earliest_open(i):
                return self._stop(text)
        self._held += text
        self._end += len(text)
        return Scanned(self._release(self._earliest_open(self._end)), hit=False)

    def flush(self) -> Scanned:
        """What is still held, at the end of the text: nothing can be completed any more."""
        if self._found is not None:
            return self._stop("")
        return Scanned(self._release(self._end), hit=False)

    def _advance(self, end: int, character: str) -> None:
        for pattern in self._patterns:
            if pattern.advance(character):
                start = end - len(pattern.text)
                self._found = start if self._found is None else min(self._found, start)

    def _earliest_open(self, end: int) -> int:
        """Where the first stop string starts that is begun and not complete; `end` if none is."""
        return end - max(pattern.matched for pattern in self._patterns)

    def _release(self, upto: int) -> str:
        """Let go of the held text before character `upto`."""
        cut = upto - (self._end - len(self._held))
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def _stop(self, text: str) -> Scanned:
        start = self._end - len(self._held)
        found = start if self._found is None else self._found
        return Scanned((self._held + text)[: found - start], hit=True)


class _Pattern:
    """How much of one stop string the text ends with (Knuth, Morris and Pratt 1977)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0

    def advance(self, character: str) -> bool:
        """Take in a character; True if the text now ends with the whole stop string."""
        borders = _borders(self.text)
        while self.matched and self.text[self.matched] != character:
            self.matched = borders[self.matched - 1]
        if self.text[self.matched] == character:
            self.matched += 1
        if self.matched < len(self.text):
            return False
        # Its next occurrence starts later and cannot win any more.
        self.matched = 0
        return True


def _borders(text: str) -> tuple[int, ...]:
    """For each prefix of `text` the length of its longest proper prefix that also is its suffix."""
    borders = [0]
    for character in text[1:]:
        length = borders[-1]
        while length and text[length] != character:
            length = borders[length - 1]
        borders.append(length + 1 if text[length] == character else 0)
    return tuple(borders)
