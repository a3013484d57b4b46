"""One circuit for all that is fetched: while store or registry are away, cold prefixes are refused at once.

    closed ──fetches of `tries` prefixes in a row find nobody there──▶ open
      ▲                                                                │
      └────── a fetch succeeds: one is let through every `pause` ──────┘

Without it every cold prefix would wait for its own time limit, one behind the other, and their requests
would fill the queue that those of loaded prefixes go through. What is on our own disk is not asked about.

The breaker of each prefix (`breaker.py`) is about that prefix, this is about where all come from. A value;
what follows from it is a pure function of the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from foreword.artifact import Digest
from foreword.errors import PrefixUnavailable
from foreword.serving.engine.residency.breaker import Failure


@dataclass(frozen=True)
class CircuitRules:
    tries: int = 3
    """Different ones: a single object that a store cannot give says nothing of the others."""
    pause: float = 1.0
    """Seconds between two fetches while it is open."""


@dataclass(frozen=True)
class Circuit:
    failed: frozenset[Digest] = frozenset()
    """Whose fetches found nobody there since the last one that succeeded."""
    last: Failure | None = None
    """Why it is open; None while it is closed."""
    until: float = 0.0
    """While it is open, no fetch begins before this moment of `time.monotonic()`."""

    @property
    def is_open(self) -> bool:
        return self.last is not None

    def most_at_once(self, rules: CircuitRules) -> int | None:
        """Fetches that may be under way when another one begins; None: any number.

        Once one found nobody there, no more begin than would open it: what else waits would be behind
        fetches that wait for their own time limit, and be told a whole limit later.
        """
        return rules.tries - len(self.failed) if self.failed and not self.is_open else None

    def lets_through(self, now: float) -> bool:
        return not self.is_open or now >= self.until

    def refusal(self, shown: str, now: float) -> PrefixUnavailable:
        """What a request for a prefix that would have to be fetched is told while it is open."""
        code, reason = (self.last.code, self.last.reason) if self.last else ("", "")
        left = max(0.0, self.until - now)
        return PrefixUnavailable(
            f"prefix {shown} is not here and cannot be fetched now: {reason} (it is tried again in "
            f"{left:.1f} s at the earliest)",
            code=code,
            retry_after=left,
        )


def after_fetch(
    before: Circuit, digest: Digest, failure: Failure | None, now: float, rules: CircuitRules
) -> Circuit:
    """The circuit after a fetch ended."""
    if failure is None:
        return Circuit()
    if before.is_open or not failure.away:
        return before  # if it was there to say no, that is about this prefix
    failed = before.failed | {digest}
    if len(failed) < rules.tries:
        return Circuit(failed)
    return Circuit(failed, failure, now + rules.pause)


def after_departure(before: Circuit, now: float, rules: CircuitRules) -> Circuit:
    """The circuit after a fetch was let through: the next one has to wait for its turn."""
    if not before.is_open:
        return before
    return replace(before, until=now + rules.pause)
