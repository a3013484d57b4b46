"""Perplexity on neutral text: what a prefix broke beside its task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from foreword.artifact import Digest, canonical
from foreword.errors import EngineFailed
from foreword.evaluation.metrics.metric import Facts, Measured, Numbers, Table

Score = Callable[[Sequence[str]], Sequence[tuple[float, int]]]
"""For each text, the sum of -ln p of its tokens and how many there are, under one variant."""

NAME = "neutral_perplexity"


def neutral_perplexity(score: Score, texts: Sequence[str]) -> Measured:
    """The perplexity over all texts; tables of two variants pair text by text.

    Raises:
        EngineFailed: the scores are not one finite number and at least one token for each text
            (`evaluation.scores`).
    """
    scores = list(score(texts))
    sound = len(scores) == len(texts) and all(math.isfinite(s) and n > 0 for s, n in scores)
    if not sound:
        raise EngineFailed(
            f"expected a finite score and at least one token for each of {len(texts)} texts",
            code="evaluation.scores",
        )
    ids = tuple(f"text-{number}" for number in range(1, len(texts) + 1))
    table = Table(ids, np.array(scores, dtype=np.float64), _perplexity, per_row=False)
    which = Digest.of(canonical.encode(list(texts))).short
    facts = Facts(
        NAME, "lower",
        f"perplexity per token on {len(texts)} texts ({which}) that have nothing to do with the task; a "
        "rise is what a prefix broke", unit="points",
    )  # fmt: skip
    return Measured(facts, table)


def _perplexity(sums: Numbers) -> float:
    total, count = float(sums[0]), float(sums[1])
    return math.exp(min(total / count, 700.0))
