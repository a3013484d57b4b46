"""One breaker per prefix: what cannot be had is not asked for again and again.

    closed ──a load fails──▶ paused ──`tries` in a row, or one that need not be repeated──▶ open
      ▲                       │  ▲                                                         │  ▲
      │                 pause over, one more load                              back-off over, one load
      └───a load succeeds─────┘                                                            │
      └───a load succeeds──────────────────────────────────────────────────────────────────┘

While it is paused, requests wait; while it is open, they are refused. A prefix that no breaker knows is
closed. A breaker is a value, and what follows from it a pure function of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foreword.errors import (
    ArtifactError,
    CompatibilityError,
    ForewordError,
    PrefixUnavailable,
    StorageError,
    TrustError,
)

_MOST_REASON = 400


@dataclass(frozen=True)
class BreakerRules:
    """Seconds, and how many loads may fail in a row before requests are refused."""

    tries: int = 3
    pause: float = 0.05
    """Before the second try; twice as long before the third."""
    shortest: float = 0.5
    """The first time it is open; doubled each time the one load that is let through fails."""
    longest: float = 2.0
    """How long after a store is well again a prefix may still be refused."""
    permanent: float = 60.0
    """After a refusal that the same bytes will meet again."""


@dataclass(frozen=True)
class Failure:
    """Why a load failed, in the words a request is refused with."""

    code: str
    reason: str
    hope: Literal["soon", "later", "none"] = "soon"
    """Whether to try again for the same request, for one that comes later, or hardly at all."""
    away: bool = False
    """Nobody answered where it was to come from: others will fare the same."""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Whose fault it was; what nobody knows is taken for something that may pass."""
        reason = str(error)[:_MOST_REASON]
        match error:
            case PrefixUnavailable():
                return cls(error.code, reason, "none" if error.retry_after is None else "later")
            case TrustError():
                return cls("prefix.not_verified", reason, "none")
            case ArtifactError():
                return cls("prefix.damaged", reason, "none")
            case CompatibilityError():
                return cls("prefix.does_not_fit_base", reason, "none")
            case TimeoutError():
                return cls("prefix.fetch_timeout", reason, "later", away=True)
            case MemoryError():
                return cls("prefix.no_memory", "there is no memory left for its tensors")
            case ForewordError():
                return cls("prefix.fetch_failed", reason, away=isinstance(error, StorageError))
            case _:
                # repr: a text from somebody else's code must not steer a terminal.
                return cls("prefix.fetch_failed", f"{type(error).__name__} {reason!r}")


@dataclass(frozen=True)
class Breaker:
    """A prefix whose last load failed."""

    failures: int
    """In a row."""
    last: Failure
    until: float
    """No load begins before this moment of `time.monotonic()`."""
    refuses: bool
    """Open rather than paused."""

    def lets_through(self, now: float) -> bool:
        return now >= self.until

    def refusal(self, shown: str, now: float) -> PrefixUnavailable:
        """What a request is told while it is open."""
        left = max(0.0, self.until - now)
        return PrefixUnavailable(
            f"prefix {shown} cannot be had: {self.last.reason} (it is asked for again in "
            f"{left:.1f} s at the earliest; {self.failures} loads failed in a row)",
            code=self.last.code,
            retry_after=left,
        )


def after_failure(
    before: Breaker | None, failure: Failure, now: float, rules: BreakerRules, jitter: float
) -> Breaker:
    """The breaker after one more load failed. `jitter` in [0, 1) takes up to half of a wait away."""
    failures = (before.failures if before else 0) + 1
    refuses = failure.hope != "soon" or failures >= rules.tries
    if failure.hope == "none":
        wait = rules.permanent
    elif refuses:
        # Bounded before it is raised: two to the power of a long row of failures is no float.
        doublings = min(max(0, failures - rules.tries), 32)
        wait = min(rules.longest, rules.shortest * 2.0**doublings)
    else:
        wait = rules.pause * 2.0 ** (failures - 1)
    return Breaker(failures, failure, now + wait * (1.0 - jitter / 2.0), refuses)
