"""Draw a token with numbers that depend on seed, answer and position alone.

The token is the argmax of score plus Gumbel noise (Gumbel 1954; Maddison et al. 2014), which is a
draw from the softmax of the scores. Unlike a walk along the cumulative probabilities it keeps the
token when rounding moves the scores a little, and rounding differs with the size of a batch.

Noise for a whole vocabulary would cost more than the rest of sampling. So the vocabulary is cut into
about sqrt(vocab) blocks of as many tokens: first a block is drawn by the log-sum of its scores, then
a token inside it. That is the same distribution with 2 sqrt(vocab) numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

Place = tuple[int, int, int]
"""Seed (64 bits), which answer of the request, which token of the answer."""


def draw(scores: NDArray[np.float32], place: Place) -> int:
    """A token by its score `[vocab]`; the highest score is 0, minus infinity is never drawn."""
    width = math.isqrt(len(scores) - 1) + 1
    weights = np.add.reduceat(np.exp(scores), np.arange(0, len(scores), width))
    noise = gumbel(place, len(weights) + width)
    with np.errstate(divide="ignore"):  # an empty block has weight 0
        block = int((np.log(weights) + noise[: len(weights)]).argmax())
    inside = scores[block * width : (block + 1) * width]
    return block * width + int((inside + noise[len(weights) :][: len(inside)]).argmax())


def gumbel(place: Place, count: int) -> NDArray[np.float64]:
    """`count` standard Gumbel numbers.

    Philox (Salmon et al. 2011) is a counter, not a state: any position can be drawn at any time, so
    a restart or another batch changes nothing. Only its raw bits are used, which numpy keeps stable.
    """
    seed, answer, position = place
    # Position is the second word of the counter: Philox counts up the first while it draws.
    key, counter = np.array([seed, answer], np.uint64), np.array([0, position, 0, 0], np.uint64)
    bits = Philox(key=key, counter=counter).random_raw(count)
    # Half a step off the grid, so that neither 0 nor 1 can come out.
    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return -np.log(-np.log(uniform))
