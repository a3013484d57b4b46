"""What is counted, and the line of a file that holds it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal, InvalidOperation
from typing import Any


@dataclass(frozen=True, order=True)
class Key:
    """What counts are kept apart by. Amounts of two currencies are never added."""

    hour: str
    """In UTC, `2026-11-24T19`."""
    tenant: str
    prefix: str
    """`base`: the bare model."""
    version: str
    currency: str


@dataclass(frozen=True)
class Counts:
    requests: int = 0
    errors: int = 0
    """Requests that ended with a status of 400 or more, a client's hanging up included."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that were reused; they are counted in `prompt_tokens` too."""
    completion_tokens: int = 0
    seconds: float = 0.0
    """Sum of the requests' durations."""
    cost: Decimal = Decimal(0)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.requests + other.requests,
            self.errors + other.errors,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
            self.cost + other.cost,
        )


@dataclass(frozen=True)
class Total:
    """Of one tenant and prefix, all versions and hours together."""

    tenant: str
    prefix: str
    currency: str
    counts: Counts


Rows = dict[Key, Counts]

_TEXTS = tuple(each.name for each in fields(Key))
_NUMBERS = tuple(each.name for each in fields(Counts) if each.name not in ("seconds", "cost"))


def add(rows: Rows, more: Mapping[Key, Counts]) -> None:
    """Add counts to those of the same key, in place."""
    for key, counts in more.items():
        rows[key] = rows.get(key, Counts()) + counts


def encode(rows: Mapping[Key, Counts]) -> bytes:
    """One line, which is what is there as a whole or not at all."""
    told = [
        {**asdict(key), **asdict(counts), "seconds": round(counts.seconds, 6),
         "cost": str(counts.cost)}
        for key, counts in sorted(rows.items())
    ]  # fmt: skip
    return json.dumps(told, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Rows | None:
    """The rows of a line; None if it is not one that `encode` wrote."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    if not isinstance(told, list):
        return None
    rows: Rows = {}
    for each in told:
        if (pair := _row(each)) is None:
            return None
        add(rows, {pair[0]: pair[1]})
    return rows


def merged(many: Iterable[Mapping[Key, Counts]]) -> Rows:
    """All of them added up."""
    rows: Rows = {}
    for each in many:
        add(rows, each)
    return rows


def _row(told: object) -> tuple[Key, Counts] | None:
    if not isinstance(told, dict):
        return None
    texts = [told.get(name) for name in _TEXTS]
    numbers = [told.get(name) for name in _NUMBERS]
    seconds, cost = told.get("seconds"), told.get("cost")
    if not all(type(text) is str for text in [*texts, cost]):
        return None
    if not all(type(number) is int for number in numbers) or type(seconds) not in (int, float):
        return None
    try:
        return Key(*map(str, texts)), _counts(numbers, seconds, str(cost))
    except (InvalidOperation, OverflowError):
        return None


def _counts(numbers: list[Any], seconds: Any, cost: str) -> Counts:
    requests, errors, prompt, cached, completion = numbers
    return Counts(requests, errors, prompt, cached, completion, float(seconds), Decimal(cost))
