"""What a test needs to know of one arm: how many, their mean, and their variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from foreword.errors import UsageError


class Arm(Protocol):
    """An arm as its sums; values themselves are not kept."""

    @property
    def n(self) -> int:
        """Units that were assigned: users, sessions or whatever is sticky, not their requests."""

    @property
    def mean(self) -> float: ...

    @property
    def variance(self) -> float:
        """Of one unit."""


@dataclass(frozen=True)
class Values:
    """A real value per unit, such as seconds or a score."""

    n: int
    total: float
    squares: float
    """Sum of the squared values."""

    def __post_init__(self) -> None:
        if self.n < 0 or self.squares < 0:
            raise UsageError(
                f"expected sums of values, got n {self.n} and squares {self.squares}",
                code="experiment.sums",
            )

    @property
    def mean(self) -> float:
        return self.total / self.n if self.n else 0.0

    @property
    def variance(self) -> float:
        if self.n < 2:
            return 0.0
        return max(0.0, (self.squares - self.total**2 / self.n) / (self.n - 1))


@dataclass(frozen=True)
class Shares:
    """A yes or no per unit, such as a thumb down or an escalation."""

    n: int
    count: int
    """Units with a yes."""

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.n:
            raise UsageError(
                f"expected a count from 0 to {self.n}, got {self.count}", code="experiment.sums"
            )

    @property
    def mean(self) -> float:
        return self.count / self.n if self.n else 0.0

    @property
    def variance(self) -> float:
        return self.mean * (1 - self.mean)
