"""Permutation p-values that cost little where nothing happened and go deep where something did.

If reference and current rows come from one place, any labelling of the pooled rows is as likely as the one
seen. Labels are drawn until `_ENOUGH` draws reached the statistic (then p is plainly not small) or there are
`most` of them. Stopping early keeps the p-value valid (Besag and Clifford 1991).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Labels = npt.NDArray[np.float32]
Statistic = Callable[[Labels], Numbers]
"""Labels `[draws, rows]`, 1 for a reference row, to statistics `[draws]`; larger is further apart."""

_ENOUGH = 20
_FIRST, _LONGEST = 100, 400


def permutation_p(
    statistic: Statistic, references: int, rows: int, most: int, seed: int
) -> tuple[float, float]:
    """The statistic of the labels as they are (the first `references` rows), and its p-value."""
    draw = np.random.default_rng([seed, references, rows])
    labels = np.zeros((1, rows), dtype=np.float32)
    labels[0, :references] = 1
    seen = float(statistic(labels)[0])
    reached, drawn, size = 0, 0, _FIRST
    while drawn < most:
        size = min(size, most - drawn)
        found = statistic(draw.permuted(np.repeat(labels, size, axis=0), axis=1))
        hits = np.flatnonzero(found >= seen - 1e-12 * max(1.0, abs(seen)))
        if reached + len(hits) >= _ENOUGH:
            return seen, _ENOUGH / (drawn + int(hits[_ENOUGH - reached - 1]) + 1)
        reached, drawn, size = reached + len(hits), drawn + size, _LONGEST
    return seen, (reached + 1) / (drawn + 1)
