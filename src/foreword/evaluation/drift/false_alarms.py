"""Alarms over many prefixes, measures and days: how rare a p-value has to be, and what is promised then.

The default is a budget of false alarms a day over all prefixes. Each look at a prefix is an alarm if its p is
at most budget / (prefixes x looks a day). The expected number of false alarms is then at most the budget,
whatever the prefixes, measures and days have to do with each other, because expectations add up. Each
decides alone, so that prefixes may be looked at whenever there are rows enough.

Who looks at all of them at once, and can live with a share of false ones among the alarms, takes
`discoveries` (Benjamini and Hochberg 1995), which finds more when many drift at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foreword.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """How many false alarms are bearable."""

    per_day: float = 0.1
    """Expected, over all prefixes: 0.1 is one in ten days."""
    prefixes: int = 1
    looks_per_day: float = 1.0
    """At each prefix."""

    def __post_init__(self) -> None:
        if not (self.per_day > 0 and self.prefixes >= 1 and self.looks_per_day > 0):
            raise UsageError(
                "expected a budget above 0, a prefix or more and more than 0 looks a day, got "
                f"{self.per_day}, {self.prefixes}, {self.looks_per_day}",
                code="drift.budget",
            )

    @property
    def level(self) -> float:
        """Of one look at one prefix."""
        return min(0.05, self.per_day / (self.prefixes * self.looks_per_day))


def discoveries(pvalues: Sequence[float], share: float = 0.1) -> list[bool]:
    """Which of many looks are alarms, so that an expected `share` of the alarms is false at most."""
    order = sorted(range(len(pvalues)), key=lambda place: pvalues[place])
    most = 0
    for rank, place in enumerate(order, 1):
        if pvalues[place] <= share * rank / len(pvalues):
            most = rank
    found = [False] * len(pvalues)
    for place in order[:most]:
        found[place] = True
    return found
