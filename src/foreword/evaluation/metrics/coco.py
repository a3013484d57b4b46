"""ROUGE-L and CIDEr by the formulas of the COCO caption evaluation, on our tokens.

The official figures of E2E use those formulas on the tokens of a Java program. With 13a tokens without
punctuation they come close and are not equal (bench/metrics.py shows by how much), so these carry
names of their own. They are not Google's `rouge-score` either, which is another metric.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from foreword.evaluation.metrics.metric import Facts, Judged, Metric, Table, mean_table, row_metric
from foreword.evaluation.metrics.published import with_references
from foreword.evaluation.metrics.words import Ngram, content_13a, ngrams

_BETA = 1.2
_ORDER = 4
_SIGMA = 6.0


def rouge_l() -> Metric:
    return row_metric(
        "rouge_l_13a",
        "ROUGE-L as COCO defines it (best precision and best recall over the references, beta 1.2), "
        "13a tokens, lower case, without punctuation",
        _rouge,
    )


def cider() -> Metric:
    return Metric(
        Facts("cider_13a", "higher", "CIDEr as COCO computes it (clipped, sigma 6, frequencies from the "
              "set's references), 13a tokens, lower case, without punctuation", unit="points"),
        _cider,
    )  # fmt: skip


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a bit of an integer per token (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    everything = (1 << len(first)) - 1
    open_ = everything
    for token in second:
        met = open_ & places.get(token, 0)
        open_ = (open_ + met) | (open_ - met)
    return len(first) - (open_ & everything).bit_count()


def _rouge(judged: Judged) -> float | None:
    if not judged.row.references:
        return None
    answer = content_13a(judged.answer.text)
    precision = recall = 0.0
    for text in judged.row.references:
        reference = content_13a(text)
        common = longest_common(answer, reference)
        precision = max(precision, common / max(1, len(answer)))
        recall = max(recall, common / max(1, len(reference)))
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


class _Vector:
    """An n-gram vector per order, weighted by how rare each n-gram is among the rows."""

    def __init__(self, tokens: Sequence[str], rows_with: Counter[Ngram], rows: int) -> None:
        counts = ngrams(tokens, _ORDER)
        self.weights: list[dict[Ngram, float]] = [{} for _ in range(_ORDER)]
        for ngram, count in counts.items():
            rarity = math.log(rows) - math.log(max(1, rows_with[ngram]))
            self.weights[len(ngram) - 1][ngram] = count * rarity
        self.norms = [math.sqrt(sum(w * w for w in each.values())) for each in self.weights]
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)
        """COCO takes the number of bigrams for the length."""

    def likeness(self, reference: _Vector) -> float:
        """Mean over the orders of the clipped cosine, less for another length."""
        fall = math.exp(-((self.length - reference.length) ** 2) / (2 * _SIGMA**2))
        total = 0.0
        for mine, theirs, a, b in zip(
            self.weights, reference.weights, self.norms, reference.norms, strict=True
        ):
            if a and b:
                shared = sum(min(w, theirs[g]) * theirs[g] for g, w in mine.items() if g in theirs)
                total += shared / (a * b)
        return total / _ORDER * fall


def _cider(judged: Sequence[Judged]) -> Table | None:
    kept = with_references(judged)
    references = [[content_13a(text) for text in each.row.references] for each in kept]
    rows_with: Counter[Ngram] = Counter()
    for refs in references:
        rows_with.update({ngram for tokens in refs for ngram in ngrams(tokens, _ORDER)})
    scores = {}
    for each, refs in zip(kept, references, strict=True):
        answer = _Vector(content_13a(each.answer.text), rows_with, len(kept))
        likes = [answer.likeness(_Vector(tokens, rows_with, len(kept))) for tokens in refs]
        scores[each.row.id] = 10 * float(np.mean(likes))
    return mean_table(scores)
