"""A check: what one row asks of an answer, and how far the answer gave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Check:
    """What a row's file says: a kind and its options, read and found sound by `parse_check`."""

    kind: str
    options: Mapping[str, Any]
    """As in the file, without `kind`."""

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.options}


@dataclass(frozen=True)
class Subject:
    """All a check may look at."""

    answer: str
    references: tuple[str, ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict)
    """The row as its file has it; only functions of one's own read it."""


@dataclass(frozen=True)
class Outcome:
    """How far an answer passed: 1 wholly, 0 not at all."""

    score: float
    detail: str = ""
    """Why it is not 1, for people."""

    @property
    def passed(self) -> bool:
        return self.score >= 1.0


Checker = Callable[[Subject], Outcome]
PASSED = Outcome(1.0)


def shown(text: str, most: int = 60) -> str:
    """A text from outside, short and harmless to a terminal."""
    return repr(text if len(text) <= most else text[: most - 1] + "…")
