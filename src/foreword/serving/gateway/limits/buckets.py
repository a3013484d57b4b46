"""A token bucket that remembers what was spent, so that its limit may change at any time. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE = 60.0


@dataclass(frozen=True)
class Bucket:
    """What was spent and has not flowed back yet; `limit` a minute flows back."""

    spent: float = 0.0
    at: float = 0.0
    """The moment of `spent`, in seconds of any steady clock."""

    def at_time(self, limit: int, now: float) -> Bucket:
        """The same bucket later. A clock that went back changes nothing."""
        passed = max(0.0, now - self.at)
        return Bucket(max(0.0, self.spent - passed * limit / MINUTE), max(self.at, now))

    def wait(self, limit: int, amount: float) -> float:
        """Seconds until `amount` can be spent: 0 if now, infinite if never."""
        missing = self.spent + amount - limit
        if missing <= 0:
            return 0.0
        if amount > limit:
            return float("inf")
        return missing * MINUTE / limit

    def spend(self, amount: float) -> Bucket:
        """More spent, or with a negative amount given back; nobody saves up more than the limit."""
        return Bucket(max(0.0, self.spent + amount), self.at)


FULL = Bucket()
"""Nothing is spent."""
