"""Is the mean of bounded values above a threshold? One test for shares, scores and their differences.

The rows seen may hide rows that were not: three rows that agree say little. So one more row is added that
has the worst value there can be, and all rows get random weights (Dirichlet(1, ..., 1)); the p-value is
the probability that the weighted mean is not above the threshold. This is the bound of Learned-Miller and
Thomas 2019 (arXiv:1905.06208). For values that are 0 or 1 it is Clopper and Pearson's exact bound, and for
many rows it is the bootstrap's.

The probability is that of a weighted sum of exponential variables being below zero. It is computed by
Lugannani and Rice's saddlepoint formula (1980) and not drawn, so the same rows always give the same answer.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from foreword.evaluation.statistics.distributions import normal_tail

Numbers = npt.NDArray[np.float64]

_PRECISE = 1e-7


def p_not_above(values: Numbers, threshold: float, worst: float) -> float:
    """P-value of "the mean is at most `threshold`", for `values` `[n]` none of which is below `worst`."""
    if threshold <= worst:  # a mean at the very bound takes every single value there
        return 1.0 if threshold == worst and bool((values == worst).all()) else 0.0
    distinct, counts = np.unique(values, return_counts=True)
    steps = np.append(distinct, worst) - threshold
    return p_at_most_zero(steps, np.append(counts, 1).astype(np.float64))


def p_not_below(values: Numbers, threshold: float, best: float) -> float:
    """P-value of "the mean is at least `threshold`", for values none of which is above `best`."""
    return p_not_above(-values, -threshold, -best)


def lower_bound(values: Numbers, alpha: float, worst: float) -> float:
    """The mean is above it with confidence 1 - `alpha`: the largest threshold that is refused."""
    low, high = worst, float(values.max())
    while high - low > _PRECISE * (1 + abs(low) + abs(high)):
        middle = (low + high) / 2
        if p_not_above(values, middle, worst) <= alpha:
            low = middle
        else:
            high = middle
    return low


def upper_bound(values: Numbers, alpha: float, best: float) -> float:
    """The mean is below it with confidence 1 - `alpha`."""
    return -lower_bound(-values, alpha, -best)


def p_at_most_zero(steps: Numbers, counts: Numbers) -> float:
    """P(sum of `counts[i]` exponential variables, each times `steps[i]`, is at most 0)."""
    if steps.max() <= 0:
        return 1.0
    t = _saddlepoint(steps, counts)
    left = 1 - t * steps
    curvature = float(counts @ (steps / left) ** 2)
    w = math.copysign(math.sqrt(max(0.0, 2 * float(counts @ np.log(left)))), t)
    u = t * math.sqrt(curvature)
    if abs(w) < 1e-4:  # the formula is 0/0 at the mean; this is its limit there
        skew = 2 * float(counts @ (steps / left) ** 3) / curvature**1.5
        return 0.5 + float(skew) / (6 * math.sqrt(2 * math.pi))
    density = math.exp(-w * w / 2) / math.sqrt(2 * math.pi)
    return min(1.0, max(0.0, normal_tail(-w) + density * (1 / w - 1 / u)))


def _saddlepoint(steps: Numbers, counts: Numbers) -> float:
    """Where the slope of the cumulant function is zero; it grows from -inf to inf between the poles."""
    low, high = 1 / float(steps.min()), 1 / float(steps.max())
    t = 0.0
    for _ in range(200):
        left = steps / (1 - t * steps)
        slope, curvature = float(counts @ left), float(counts @ left**2)
        if slope > 0:
            high = t
        else:
            low = t
        step = t - slope / curvature
        # Newton's step, or the middle where it would leave the bracket.
        following = step if low < step < high else (low + high) / 2
        if abs(following - t) <= 1e-13 * (1 + abs(t)):
            return following
        t = following
    return t
