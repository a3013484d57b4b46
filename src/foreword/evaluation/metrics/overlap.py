"""Exact match and token F1 with the best of a row's references."""

from __future__ import annotations

from collections import Counter

from foreword.evaluation.metrics.metric import Judged, Metric, row_metric
from foreword.evaluation.metrics.words import words


def exact_match() -> Metric:
    return row_metric("exact_match", "the answer is one of the references, but for spaces", _exact)


def token_f1() -> Metric:
    return row_metric(
        "token_f1",
        "F1 of the words shared with the nearest reference, without case and punctuation",
        _token_f1,
    )


def f1(shared: float, said: float, wanted: float) -> float:
    """Harmonic mean of shared / said and shared / wanted; two empty sides agree."""
    if not said and not wanted:
        return 1.0
    return 2 * shared / (said + wanted)


def _exact(judged: Judged) -> float | None:
    if not judged.row.references:
        return None
    said = judged.answer.text.split()
    return float(any(said == reference.split() for reference in judged.row.references))


def _token_f1(judged: Judged) -> float | None:
    if not judged.row.references:
        return None
    said = Counter(words(judged.answer.text))
    return max(_shared(said, Counter(words(reference))) for reference in judged.row.references)


def _shared(said: Counter[str], wanted: Counter[str]) -> float:
    return f1((said & wanted).total(), said.total(), wanted.total())
