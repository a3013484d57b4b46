"""How well times tell two kinds of cases apart: the area under the ROC curve, without a direction.

0.5: not at all; 1: always. By ranks (Mann and Whitney, 1947), ties counting half. Whoever guesses knows
what being faster would mean only after trying, so 0.3 tells as much as 0.7 and is given as 0.7.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def auc(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two samples of times, from 0.5 on."""
    values = np.concatenate([np.asarray(one), np.asarray(other)])
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    wins = ranks[: len(one)].sum() - len(one) * (len(one) + 1) / 2
    return 0.5 + abs(float(wins) / (len(one) * len(other)) - 0.5)


def spread(n: int) -> float:
    """Standard deviation of the area for two samples of `n` that do not differ."""
    return float(np.sqrt((2 * n + 1) / (12 * n * n)))


def bound(n: int, goal: float) -> float:
    """The goal, or for a sample that is too small for it what only 1 in 15,000 like it exceeds."""
    return max(goal, 0.5 + 4 * spread(n))
