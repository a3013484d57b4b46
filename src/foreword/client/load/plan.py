"""How much is asked, of whom and when. A plan and its seed decide every request."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from foreword.errors import UsageError

MOST_SECONDS, MOST_AT_ONCE, MOST_RATE = 3_600.0, 1_000, 10_000.0
_TEXT = (
    "my order has not come yet please say when it will be here the tent is torn and I want "
    "another one or my money back thank you for your help with this account today"
)


@dataclass(frozen=True)
class Plan:
    """`models` in order of popularity: the k-th is asked for in proportion to 1 / k ** zipf.

    Raises:
        UsageError: a value that cannot be used (`load.plan`).
    """

    models: tuple[str, ...]
    zipf: float = 1.0
    concurrency: int = 8
    """Requests at the same time, at most."""
    rate: float | None = None
    """Requests a second, at random moments (Poisson); None: as many as `concurrency` lets through."""
    seconds: float = 10.0
    requests: int | None = None
    """Stop after so many; None: only when the time is over."""
    streams: float = 0.5
    """Share of requests that are streamed."""
    max_tokens: int = 16
    """Of each answer, which goes on past the model's own end of text."""
    words: int = 12
    """Of each question, at random."""
    users: int = 100
    """Different users, who decide which arm of a release answers."""
    seed: int = 0
    timeout: float = 60.0
    """Seconds without a byte after which a request is given up."""

    def __post_init__(self) -> None:
        _require("a model", len(self.models), 1, None)
        _require("--zipf", self.zipf, 0, 10)
        _require("--concurrency", self.concurrency, 1, MOST_AT_ONCE)
        if self.rate is not None:
            _require("--rate", self.rate, 0.001, MOST_RATE)
        _require("--duration", self.seconds, 0.1, MOST_SECONDS)
        _require("--requests", 1 if self.requests is None else self.requests, 1, None)
        _require("--streams", self.streams, 0, 1)
        _require("--max-tokens", self.max_tokens, 1, None)
        _require("--words", self.words, 1, 10_000)
        _require("--users", self.users, 1, None)
        _require("--timeout", self.timeout, 0.1, MOST_SECONDS)


@dataclass(frozen=True)
class Asked:
    """One request."""

    model: str
    text: str
    user: str
    stream: bool

    def body(self, max_tokens: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model, "messages": [{"role": "user", "content": self.text}],
            "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "user": self.user,
        }  # fmt: skip
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


def asks(plan: Plan) -> Iterator[Asked]:
    """Every request of a plan, in order; up to `requests`, or without an end."""
    draw, known = random.Random(plan.seed), _TEXT.split()
    weights = list(
        itertools.accumulate(rank**-plan.zipf for rank in range(1, len(plan.models) + 1))
    )
    numbers = itertools.count() if plan.requests is None else range(plan.requests)
    for _ in numbers:
        yield Asked(
            draw.choices(plan.models, cum_weights=weights)[0],
            " ".join(draw.choices(known, k=plan.words)),
            f"user-{draw.randrange(plan.users)}",
            draw.random() < plan.streams,
        )


def arrivals(plan: Plan) -> Iterator[float]:
    """Seconds after the beginning at which an open loop asks; all zero for a closed one."""
    draw, at = random.Random(f"arrivals {plan.seed}"), 0.0
    while True:
        if plan.rate is not None:
            at += draw.expovariate(plan.rate)
        yield at


def _require(name: str, value: float, least: float, most: float | None) -> None:
    if not math.isfinite(value) or value < least or (most is not None and value > most):
        bounds = f"at least {least:g}" if most is None else f"from {least:g} to {most:g}"
        raise UsageError(f"{name}: expected {bounds}, got {value:g}", code="load.plan")
