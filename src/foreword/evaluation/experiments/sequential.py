"""Two arms compared as often as one likes: a confidence sequence, and the always-valid p-value with it.

A test that is made for one look, repeated every day until it says yes, says yes to nothing sooner or later.
This one may be looked at after every unit and stopped at any time. It is the mixture sequential probability
ratio test (mSPRT; Robbins 1970, Johari et al. 2022) with a normal mixture and estimated variances, which is
the asymptotic confidence sequence of Waudby-Smith et al. (arXiv:2103.06476v7, equations 9, 155 and 161);
gbstats computes the same. It is asymptotic: right from some hundred units on, so nothing is said before
`fewest`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from foreword.errors import UsageError
from foreword.evaluation.experiments.arms import Arm

TUNING = 5_000
FEWEST = 100


@dataclass(frozen=True)
class Comparison:
    """Canary minus stable, as of this look."""

    difference: float
    low: float
    high: float
    """The interval of all looks together covers the true difference with confidence 1 - alpha."""
    p: float
    """Always valid: to stop when it is at most alpha is wrong with probability alpha at most."""
    evidence: float
    """The likelihood ratio (e-value) against no difference; p is one over it."""
    n: int
    """Units of both arms."""
    alpha: float

    @property
    def is_different(self) -> bool:
        return self.p <= self.alpha


def compare(
    stable: Arm,
    canary: Arm,
    *,
    alpha: float = 0.05,
    null: float = 0.0,
    tuning: float = TUNING,
    fewest: int = FEWEST,
) -> Comparison:
    """Look at two arms. `null` is the difference that p speaks of.

    `tuning` is the number of units in both arms at which the interval is about tightest; it has to be
    chosen before the first look. With fewer than `fewest` units in either arm, or no variance at all,
    the interval is everything and p is 1.

    Raises:
        UsageError: alpha is not between 0 and 1, or `tuning` is not above 0 (`experiment.settings`).
    """
    if not 0 < alpha < 1 or not tuning > 0:
        raise UsageError(
            f"expected an alpha between 0 and 1 and a tuning above 0, got {alpha} and {tuning}",
            code="experiment.settings",
        )
    difference, n = canary.mean - stable.mean, stable.n + canary.n
    if min(stable.n, canary.n) < max(1, fewest):
        return Comparison(difference, -math.inf, math.inf, 1.0, 0.0, n, alpha)
    variance = stable.variance / stable.n + canary.variance / canary.n
    if variance <= 0:
        return Comparison(difference, -math.inf, math.inf, 1.0, 0.0, n, alpha)
    rho2 = _rho_squared(alpha, tuning)
    weight = n * rho2 + 1
    reach = math.sqrt(variance * 2 * weight * math.log(math.sqrt(weight) / alpha) / (n * rho2))
    exponent = rho2 * (difference - null) ** 2 * n / (2 * variance * weight)
    log_evidence = exponent - math.log(weight) / 2
    return Comparison(
        difference,
        difference - reach,
        difference + reach,
        math.exp(-max(0.0, log_evidence)),
        math.exp(min(700.0, log_evidence)),
        n,
        alpha,
    )


def _rho_squared(alpha: float, tuning: float) -> float:
    """Width of the mixture that makes the interval tightest near `tuning` units (equation 161)."""
    twice = -2 * math.log(alpha)
    return (twice + math.log(twice + 1)) / tuning
