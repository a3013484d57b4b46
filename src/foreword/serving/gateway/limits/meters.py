"""What one tenant or one key has asked for, held against its limits. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from foreword.serving.gateway.access.tenants import Limits
from foreword.serving.gateway.limits.buckets import FULL, Bucket

Kind = Literal["requests", "tokens", "streams"]
STREAM_WAIT = 1.0
"""Seconds to suggest when all streams are taken: nobody knows when one ends."""


@dataclass(frozen=True)
class Excess:
    """A limit that a request would break."""

    kind: Kind
    limit: int
    wait: float
    """Seconds until it would fit; infinite if it never does."""


@dataclass(frozen=True)
class Meter:
    """What is spent, and how many requests are being answered."""

    requests: Bucket = FULL
    tokens: Bucket = FULL
    streams: int = 0

    def at_time(self, limits: Limits, now: float) -> Meter:
        """The same meter later. What has no limit now starts empty if it gets one."""
        return Meter(
            Bucket(at=now) if limits.requests is None else self.requests.at_time(limits.requests, now),
            Bucket(at=now) if limits.tokens is None else self.tokens.at_time(limits.tokens, now),
            self.streams,
        )  # fmt: skip

    def excess(self, limits: Limits, tokens: int) -> Excess | None:
        """The limit that would make one more request wait longest, or None if it fits now."""
        broken = (each for each in self._waits(limits, tokens) if each.wait > 0)
        return max(broken, key=lambda each: each.wait, default=None)

    def begin(self, tokens: int) -> Meter:
        """One more request that is being answered."""
        return Meter(self.requests.spend(1), self.tokens.spend(tokens), self.streams + 1)

    def end(self, tokens: int) -> Meter:
        """It is over, and took so many tokens more (or, below 0, less) than it was thought to."""
        return Meter(self.requests, self.tokens.spend(tokens), self.streams - 1)

    @property
    def idle(self) -> bool:
        """Whether forgetting it changes nothing."""
        return self == Meter(Bucket(at=self.requests.at), Bucket(at=self.tokens.at))

    def _waits(self, limits: Limits, tokens: int) -> Iterator[Excess]:
        if limits.requests is not None:
            yield Excess("requests", limits.requests, self.requests.wait(limits.requests, 1))
        if limits.tokens is not None:
            yield Excess("tokens", limits.tokens, self.tokens.wait(limits.tokens, tokens))
        if limits.streams is not None and self.streams >= limits.streams:
            yield Excess("streams", limits.streams, STREAM_WAIT if limits.streams else math.inf)
