"""How many rows a gate needs, and what it would find with those there are: before a run, and in its verdict.

All is for the test of `noninferiority`: the mean of a paired difference against -margin, one-sided at
alpha; the gap is the distance of the true difference from -margin. The measured mean is taken for normal,
as in the usual n = (z_alpha + z_power)^2 variance / gap^2, but the mean that it takes to pass is found with
the test itself, because the one worst row it adds weighs much where rows are few or differ little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from foreword.errors import UsageError
from foreword.evaluation.statistics.bounded import p_at_most_zero
from foreword.evaluation.statistics.distributions import normal_tail

Numbers = npt.NDArray[np.float64]
_MOST_ROWS = 1 << 40


@dataclass(frozen=True)
class Power:
    """What a gate with these rows can tell."""

    n: int
    margin: float
    alpha: float
    variance: float
    """Of the paired difference of one row."""
    source: Literal["pilot", "assumed"]
    pass_if_equal: float
    """Probability of `pass` if both are as good."""
    regression: float
    """A loss of this size, beyond the margin..."""
    fail_if_regressed: float
    """...is shown (`fail`) with this probability."""
    detectable: float
    """The smallest loss that is shown with the power asked for; infinite if there is none in range."""
    rows_to_pass: int
    """Rows that `pass` an equal candidate with the power asked for."""
    rows_to_fail: int
    """Rows that `fail` one that lost `regression`; 0 if that is within the margin, so never to be failed."""
    power: float
    """Asked for."""


def estimate(
    n: int,
    margin: float,
    regression: float,
    *,
    variance: float,
    source: Literal["pilot", "assumed"],
    alpha: float = 0.05,
    power: float = 0.8,
    reach: float = 1.0,
    rules: int = 1,
) -> Power:
    """All of `Power` for `n` rows. `reach` is the largest difference of a row there can be.

    With many `rules`, a fail of one of them needs alpha / rules (Holm's first step). A loss adds variance of
    its own: at most as much as if answers became worthless on a share of the rows.

    Raises:
        UsageError: a number is out of its range (`power.value`).
    """
    _check(variance, alpha, power, reach)
    beyond, share = regression - margin, alpha / rules
    lost = variance + regression * max(0.0, reach - regression)
    return Power(
        n=n,
        margin=margin,
        alpha=alpha,
        variance=variance,
        source=source,
        pass_if_equal=power_of(n, variance, margin, alpha=alpha, reach=reach),
        regression=regression,
        fail_if_regressed=power_of(n, lost, beyond, alpha=share, reach=reach),
        detectable=margin + detectable_gap(n, lost, alpha=share, power=power, reach=reach),
        rows_to_pass=rows_needed(variance, margin, alpha=alpha, power=power, reach=reach),
        rows_to_fail=rows_needed(lost, beyond, alpha=share, power=power, reach=reach)
        if beyond > 0
        else 0,
        power=power,
    )


def variance_of_pilot(differences: Numbers) -> float:
    """Variance of one row's difference, from a pilot `[n]`.

    One row of half the reach is added as doubt: a few rows that agree must not promise a power of 1.

    Raises:
        UsageError: fewer than two rows (`power.value`).
    """
    n = len(differences)
    if n < 2:
        raise UsageError(f"expected two pilot rows or more, got {n}", code="power.value")
    return float((n - 1) * differences.var(ddof=1) + 0.25) / n


def variance_of_discordance(discordance: float, difference: float = 0.0) -> float:
    """Variance of one row's difference if a share of rows is right on one side only (McNemar's pairs)."""
    return discordance - difference**2


def rows_needed(
    variance: float, gap: float, *, alpha: float = 0.05, power: float = 0.8, reach: float = 1.0
) -> int:
    """Rows for which a true difference `gap` away from -margin is told with this power.

    Raises:
        UsageError: the gap is not above 0, or a number is out of its range (`power.value`).
    """
    _check(variance, alpha, power, reach)
    if not gap > 0:
        raise UsageError(
            f"no number of rows tells a gap of {gap}; expected one above 0", code="power.value"
        )
    low, high = 0, 1
    while power_of(high, variance, gap, alpha=alpha, reach=reach) < power:
        low, high = high, 2 * high
        if high > _MOST_ROWS:
            raise UsageError(f"a gap of {gap} needs more rows than anybody has", code="power.value")
    while high - low > 1:
        middle = (low + high) // 2
        enough = power_of(middle, variance, gap, alpha=alpha, reach=reach) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def fewest_rows(gap: float, *, alpha: float = 0.05, reach: float = 1.0) -> int:
    """With fewer rows not even a set without any difference passes: (1 - gap / reach)^n is above alpha.

    For a margin of 0.05 and alpha 0.05 that is 59 rows.
    """
    if gap >= reach:
        return 1
    return math.ceil(math.log(alpha) / math.log1p(-gap / reach))


def power_of(
    n: int, variance: float, gap: float, *, alpha: float = 0.05, reach: float = 1.0
) -> float:
    """Probability that `n` rows tell a true difference that is `gap` away from -margin."""
    if gap <= 0 or n < fewest_rows(gap, alpha=alpha, reach=reach):
        return 0.0
    left = gap - _distance(n, variance, gap, alpha, reach)
    if variance <= 0:
        return 1.0 if left >= 0 else 0.0
    return normal_tail(-left * math.sqrt(n / variance))


def _distance(n: int, variance: float, gap: float, alpha: float, reach: float) -> float:
    """How far from -margin the mean of `n` rows has to be to be told: those that are half of them one
    standard deviation above it and half below."""
    spread = np.array([-1.0, 1.0]) * math.sqrt(variance)
    low, high = 0.0, gap + 10 * (math.sqrt(variance / n) + 1 / n) * reach
    counts = np.array([n / 2, n / 2, 1.0])
    for _ in range(40):
        middle = (low + high) / 2
        steps = np.append(spread + middle, -reach)
        low, high = (low, middle) if p_at_most_zero(steps, counts) <= alpha else (middle, high)
    return high


def detectable_gap(
    n: int, variance: float, *, alpha: float = 0.05, power: float = 0.8, reach: float = 1.0
) -> float:
    """The smallest gap that `n` rows tell with this power; infinite if none up to `reach`."""
    if power_of(n, variance, reach, alpha=alpha, reach=reach) < power:
        return math.inf
    low, high = 0.0, reach
    for _ in range(50):
        middle = (low + high) / 2
        enough = power_of(n, variance, middle, alpha=alpha, reach=reach) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def _check(variance: float, alpha: float, power: float, reach: float) -> None:
    if not variance >= 0 or not 0 < alpha < 0.5 or not 0 < power < 1 or not reach > 0:
        raise UsageError(
            "expected a variance of 0 or more, alpha below 0.5, a power between 0 and 1 and a reach "
            f"above 0, got {variance}, {alpha}, {power}, {reach}",
            code="power.value",
        )
