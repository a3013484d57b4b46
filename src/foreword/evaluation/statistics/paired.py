"""Intervals and tests for paired differences: one number per row, the same rows on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 22
"""Numbers drawn at once: 32 MB, whatever the size of the set."""


@dataclass(frozen=True)
class Interval:
    """An estimate with the interval that covers it at the confidence asked for."""

    low: float
    high: float
    estimate: float
    n: int
    """Rows."""
    p: float
    """Two-sided, of no difference at all."""


def paired_bootstrap(
    differences: npt.NDArray[np.float64], resamples: int, confidence: float, seed: int
) -> Interval:
    """The mean of `differences` `[n]`: percentile bootstrap, and a sign-flip test for `p`.

    The test is exact in its kind also for few rows: with n of them no p is below 2^(1-n), where a
    bootstrap alone would be sure of anything that three rows agree on.
    """
    n = len(differences)
    draw = np.random.default_rng([seed, n])
    tail = (1 - confidence) / 2
    estimate = float(differences.mean())
    means = np.concatenate([
        differences[draw.integers(0, n, size=(block, n))].mean(axis=1)
        for block in blocks(resamples, n)
    ])  # fmt: skip
    low, high = np.quantile(means, [tail, 1 - tail])
    flipped = np.concatenate([
        (differences * draw.choice((-1.0, 1.0), size=(block, n))).mean(axis=1)
        for block in blocks(resamples, n)
    ])  # fmt: skip
    return Interval(float(low), float(high), estimate, n, p_of(flipped, estimate))


def p_of(null: npt.NDArray[np.float64], estimate: float) -> float:
    """Two-sided Monte Carlo p-value: the estimate itself counts as one of the draws, so it is never 0."""
    # Rounding must not make an equal draw look smaller.
    reached = np.abs(null) >= abs(estimate) * (1 - 1e-12)
    return float((1 + reached.sum()) / (1 + len(null)))


def blocks(resamples: int, n: int) -> Iterator[int]:
    """Sizes that add up to `resamples`, so that each block draws a bounded amount of numbers."""
    size = max(1, _BLOCK // max(1, n))
    while resamples > 0:
        yield min(size, resamples)
        resamples -= size
