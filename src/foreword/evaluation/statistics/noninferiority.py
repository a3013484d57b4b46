"""Is the candidate worse than the incumbent by more than a margin? One-sided, on paired rows.

Three answers: `pass`, the difference is shown to be above -margin; `fail`, it is shown to be below it;
`insufficient`, the rows show neither. Each of `pass` and `fail` is wrong with probability alpha at most.
No randomness: the same rows give the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from foreword.errors import UsageError
from foreword.evaluation.statistics.bounded import (
    lower_bound,
    p_not_above,
    p_not_below,
    upper_bound,
)
from foreword.evaluation.statistics.distributions import (
    normal_quantile,
    normal_tail,
    student_quantile,
    student_tail,
)
from foreword.evaluation.statistics.multiplicity import holm
from foreword.evaluation.statistics.paired import Interval

Numbers = npt.NDArray[np.float64]
Bounds = tuple[float, float]
Outcome = Literal["pass", "fail", "insufficient"]

DIFFERENCE_OF_SHARES: Bounds = (-1.0, 1.0)
"""Smallest and largest difference of two values from 0 to 1."""


@dataclass(frozen=True)
class Evidence:
    """What rows say about "the mean is above `threshold`"."""

    outcome: Outcome
    estimate: float
    low: float
    """The mean is above it with confidence 1 - alpha."""
    high: float
    """The mean is below it with confidence 1 - alpha."""
    threshold: float
    alpha: float
    n: int
    p_below: float
    """Of "it is at most the threshold": small speaks for `pass`."""
    p_above: float
    """Of "it is at least the threshold": small speaks for `fail`."""


def noninferior(
    differences: Numbers,
    margin: float,
    *,
    alpha: float = 0.05,
    bounds: Bounds | None = DIFFERENCE_OF_SHARES,
) -> Evidence:
    """Test that the mean of `differences` `[n]` (candidate minus incumbent, row by row) is above -margin.

    Higher has to be better: negate the differences of a metric where lower is. Binary and real values
    alike; `bounds` are the smallest and the largest difference there can be, (-1, 1) for anything that
    goes from 0 to 1. None for values without bounds, such as seconds: then it is Student's t test, which
    is right for many rows only.

    Raises:
        UsageError: a margin below 0, an alpha not between 0 and 0.5, or differences outside `bounds`.
    """
    if not margin >= 0:
        raise UsageError(f"expected a margin of 0 or more, got {margin}", code="gate.margin")
    return above(differences, -margin, alpha=alpha, bounds=bounds)


def above(
    values: Numbers, threshold: float, *, alpha: float = 0.05, bounds: Bounds | None = (0.0, 1.0)
) -> Evidence:
    """Test that the mean of `values` `[n]` is above `threshold`: a floor, or a margin turned around.

    A floor at the upper bound itself ("all rows, always") is never shown by any number of rows; ask for
    0.99, or look at the rows seen instead of testing.

    Raises:
        UsageError: as `noninferior`.
    """
    given = np.asarray(values, dtype=np.float64)
    _check(given, alpha, bounds)
    if len(given) == 0:
        low, high = bounds or (-math.inf, math.inf)
        return Evidence("insufficient", math.nan, low, high, threshold, alpha, 0, 1.0, 1.0)
    if bounds is None:
        return _by_student(given, threshold, alpha)
    worst, best = bounds
    return _decided(
        Evidence(
            "insufficient",
            float(given.mean()),
            lower_bound(given, alpha, worst),
            upper_bound(given, alpha, best),
            threshold,
            alpha,
            len(given),
            p_not_above(given, threshold, worst),
            p_not_below(given, threshold, best),
        )
    )


def from_interval(
    interval: Interval, threshold: float, *, alpha: float = 0.05, bounds: Bounds, fewest: int = 30
) -> Evidence:
    """The same for what is no mean over rows, such as BLEU: read off its bootstrap interval.

    `interval` has to be two-sided with confidence 1 - 2 alpha, which is one-sided 1 - alpha. Its width
    gives the standard error of a normal distribution. With less than `fewest` rows it shows nothing, and
    an interval without width (no row differs) only if as many equal rows would do for a mean.
    """
    error = (interval.high - interval.low) / (2 * normal_quantile(1 - alpha))
    distance = interval.estimate - threshold
    p_below, p_above = 1.0, 1.0
    if interval.n >= fewest:
        if error > 0:
            p_below, p_above = normal_tail(distance / error), normal_tail(-distance / error)
        else:
            same = np.full(interval.n, interval.estimate)
            p_below = p_not_above(same, threshold, bounds[0])
            p_above = p_not_below(same, threshold, bounds[1])
    return _decided(
        Evidence(
            "insufficient", interval.estimate, interval.low, interval.high, threshold, alpha,
            interval.n, p_below, p_above,
        )
    )  # fmt: skip


def as_family(tests: Mapping[str, Evidence]) -> dict[str, Evidence]:
    """Many tests of which one `fail` fails the whole: `p_above` by Holm, outcomes decided again.

    All of them have to pass for the whole to pass, so a whole `pass` is wrong with probability alpha
    at most without a correction (intersection-union, Berger 1982); one wrong `fail` out of many is what
    has to be corrected for.
    """
    adjusted = holm([each.p_above for each in tests.values()])
    return {
        name: _decided(replace(each, p_above=p))
        for (name, each), p in zip(tests.items(), adjusted, strict=True)
    }


def _by_student(values: Numbers, threshold: float, alpha: float) -> Evidence:
    n, mean = len(values), float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    if error == 0:  # rows that agree to the digit say nothing about how much others would differ
        return Evidence(
            "insufficient", mean, -math.inf, math.inf, threshold, alpha, n, 1.0, 1.0
        )  # fmt: skip
    reach = student_quantile(1 - alpha, n - 1) * error
    t = (mean - threshold) / error
    return _decided(
        Evidence(
            "insufficient", mean, mean - reach, mean + reach, threshold, alpha, n,
            student_tail(t, n - 1), student_tail(-t, n - 1),
        )
    )  # fmt: skip


def _decided(evidence: Evidence) -> Evidence:
    outcome: Outcome = "insufficient"
    if evidence.p_below <= evidence.alpha:
        outcome = "pass"
    elif evidence.p_above <= evidence.alpha:
        outcome = "fail"
    return replace(evidence, outcome=outcome)


def _check(values: Numbers, alpha: float, bounds: Bounds | None) -> None:
    if not 0 < alpha < 0.5:
        raise UsageError(f"expected an alpha between 0 and 0.5, got {alpha}", code="gate.alpha")
    if not np.isfinite(values).all():
        raise UsageError(
            "expected a number for every row, got one that is none", code="gate.values"
        )
    if bounds is not None and len(values):
        low, high = float(values.min()), float(values.max())
        if low < bounds[0] or high > bounds[1]:
            raise UsageError(
                f"expected values from {bounds[0]} to {bounds[1]}, got {low} to {high}; give the bounds of "
                "this metric, or none",
                code="gate.values",
            )
