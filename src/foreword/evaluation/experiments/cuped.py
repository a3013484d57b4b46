"""CUPED: less variance by what was known of each unit before the experiment (Deng et al. 2013).

The value is replaced by value - theta * before, with theta from both arms together, so that the difference
of the arms keeps its expectation and loses the part of its variance that the past explains.
"""

from __future__ import annotations

from dataclasses import dataclass

from foreword.evaluation.experiments.arms import Values


@dataclass(frozen=True)
class WithPast:
    """One arm: a value per unit, the same unit's value before, and the sum of their products."""

    now: Values
    before: Values
    products: float

    @property
    def covariance(self) -> float:
        n = self.now.n
        if n < 2:
            return 0.0
        return (self.products - self.now.total * self.before.total / n) / (n - 1)


@dataclass(frozen=True)
class Adjusted:
    """An arm after the adjustment; it can be compared like any other."""

    n: int
    mean: float
    variance: float


@dataclass(frozen=True)
class Cuped:
    stable: Adjusted
    canary: Adjusted
    theta: float
    reduction: float
    """Part of the variance of the difference that is gone, from 0 to 1."""


def cuped(stable: WithPast, canary: WithPast) -> Cuped:
    """Adjust both arms. Without variance before or now, nothing is adjusted (theta 0)."""
    theta = _theta(stable, canary)
    arms = [_adjusted(arm, theta) for arm in (stable, canary)]
    was = sum(arm.now.variance / arm.now.n for arm in (stable, canary) if arm.now.n)
    left = sum(arm.variance / arm.n for arm in arms if arm.n)
    return Cuped(arms[0], arms[1], theta, 1 - left / was if was else 0.0)


def _theta(stable: WithPast, canary: WithPast) -> float:
    joint = WithPast(
        _sum(stable.now, canary.now),
        _sum(stable.before, canary.before),
        stable.products + canary.products,
    )
    if not joint.before.variance or not joint.now.variance:
        return 0.0
    return joint.covariance / joint.before.variance


def _adjusted(arm: WithPast, theta: float) -> Adjusted:
    variance = (
        arm.now.variance + theta**2 * arm.before.variance - 2 * theta * arm.covariance
    )  # fmt: skip
    return Adjusted(arm.now.n, arm.now.mean - theta * arm.before.mean, max(0.0, variance))


def _sum(one: Values, other: Values) -> Values:
    return Values(one.n + other.n, one.total + other.total, one.squares + other.squares)
