"""The slope of a line through points that a few outliers do not move, and how far it may be off.

The median of the slopes of all pairs of points (Theil 1950, Sen 1968), with Sen's interval from the variance
of Kendall's S. Every k-th point is taken where there are many, because pairs grow with their square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MOST = 400
_Z = 1.959963984540054
"""Of a normal distribution at 97.5 %."""


@dataclass(frozen=True)
class Slope:
    """Per unit of x, with the bounds of the 95 % confidence interval."""

    median: float
    lower: float
    upper: float


def slope(x: Sequence[float], y: Sequence[float]) -> Slope:
    """Of at least three points, in the order of `x`."""
    every = -(-len(x) // _MOST)
    at, value = np.asarray(x[::every], float), np.asarray(y[::every], float)
    n = len(at)
    if n < 3:
        raise ValueError(f"expected at least 3 points, got {n}")
    first, second = np.triu_indices(n, 1)
    slopes = np.sort((value[second] - value[first]) / (at[second] - at[first]))
    spread = _Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(0, round((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, round((len(slopes) + spread) / 2))
    return Slope(float(np.median(slopes)), float(slopes[low]), float(slopes[high]))
