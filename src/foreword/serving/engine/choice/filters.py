"""Which tokens may be drawn: top-k, top-p and min-p.

Scores are one row's `[vocab]`, float32, after temperature: the highest is 0. A dropped token gets
minus infinity. Tokens as likely as the last one kept are kept too, so that what is kept does not
depend on the order of sorting.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CUTS = (np.float32(-7), np.float32(-14), np.float32(-np.inf))
"""Where to look for the likeliest tokens: sorting a few is ten times faster than sorting all."""


def keep_top_k(scores: NDArray[np.float32], k: int) -> None:
    """Keep the `k` highest scores."""
    if k >= len(scores):
        return
    for cut in _CUTS:
        likely = scores[scores >= cut]
        if len(likely) >= k:
            break
    scores[scores < np.partition(likely, -k)[-k]] = -np.inf


def keep_top_p(scores: NDArray[np.float32], p: float) -> None:
    """Keep the likeliest tokens that together have at least the probability `p`.

    Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1.
    """
    weights = np.exp(scores)
    wanted = p * float(weights.sum())
    for cut in _CUTS:
        likely = weights[scores >= cut]
        if likely.sum() >= wanted:
            break
    likely[::-1].sort()
    before = likely.cumsum(dtype=np.float64) - likely
    scores[weights < likely[max(int((before < wanted).sum()), 1) - 1]] = -np.inf


def keep_min_p(scores: NDArray[np.float32], p: float) -> None:
    """Keep the tokens at least `p` times as likely as the likeliest.

    Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling".
    """
    scores[scores < np.float32(np.log(p))] = -np.inf
