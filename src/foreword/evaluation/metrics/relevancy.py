"""Answer relevancy: how near an answer is to its question, as vectors. A proxy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from foreword.errors import EngineFailed
from foreword.evaluation.metrics.metric import Facts, Judged, Metric, Table, mean_table

Embed = Callable[[Sequence[str]], npt.NDArray[np.floating]]
"""Texts to vectors `[texts, d]`."""

_DIMENSIONS = 1024
_GRAM = 4


def answer_relevancy(embed: Embed | None = None) -> Metric:
    """Cosine of the question's and the answer's vectors, of `embed` or of hashed character 4-grams.

    The 4-grams only see shared spelling: an answer that repeats the question scores high.
    """
    named = getattr(embed, "name", "a given encoder")
    how = f"the encoder {named}" if embed else "hashed character 4-grams"
    return Metric(
        Facts("answer_relevancy" if embed else "answer_relevancy_4grams", "higher",
              f"cosine of question and answer as vectors of {how}", proxy=True),
        lambda judged: _measure(judged, embed or hashed_ngrams),
    )  # fmt: skip


def hashed_ngrams(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Counts of character 4-grams, hashed with a sign into 1,024 places `[texts, 1024]`."""
    vectors = np.zeros((len(texts), _DIMENSIONS), dtype=np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        padded = f" {' '.join(text.casefold().split())} "
        for start in range(max(1, len(padded) - _GRAM + 1)):
            place = int.from_bytes(
                hashlib.blake2b(padded[start : start + _GRAM].encode(), digest_size=4).digest(),
                "big",
            )
            vector[place % _DIMENSIONS] += 1 if place & 1 << 31 else -1
    return vectors


def _measure(judged: Sequence[Judged], embed: Embed) -> Table | None:
    if not judged:
        return None
    questions = _unit(embed([each.row.text for each in judged]), len(judged))
    answers = _unit(embed([each.answer.text for each in judged]), len(judged))
    cosines = np.einsum("ij,ij->i", questions, answers)
    return mean_table({e.row.id: float(c) for e, c in zip(judged, cosines, strict=True)})


def _unit(vectors: npt.NDArray[np.floating], rows: int) -> npt.NDArray[np.float64]:
    wide = np.asarray(vectors, dtype=np.float64)
    if wide.ndim != 2 or len(wide) != rows or not np.isfinite(wide).all():
        raise EngineFailed(
            f"expected {rows} finite vectors of one length from the encoder, got an array of shape "
            f"{wide.shape}",
            code="evaluation.vectors",
        )
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(lengths == 0, 1.0, lengths)
