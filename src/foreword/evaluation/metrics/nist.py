"""NIST (Doddington 2002) as mteval-v13a.pl computes it, which E2E's official figures are from.

    score  = sum over n = 1..5 of (information of matched n-grams / n-grams of all answers)
             * exp(b * ln(min(1, Lanswers / Lreferences))^2),  b = ln 0.5 / (ln 1.5)^2
    info(w1..wn) = log2(count(w1..wn-1) / count(w1..wn)) over all references of the set
    Lreferences  = words of all references / mean number of references of a row

The length is the Perl script's; ports that average over rows first give other figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from foreword.evaluation.metrics.metric import Facts, Judged, Metric, Numbers, Table
from foreword.evaluation.metrics.published import with_references
from foreword.evaluation.metrics.words import Ngram, ngrams, tokens_13a

_ORDER = 5
_BETA = math.log(0.5) / math.log(1.5) ** 2


def nist() -> Metric:
    return Metric(
        Facts("nist", "higher", "corpus NIST-5: 13a tokens, lower case, information from all references "
              "of the set, the length penalty of mteval-v13a.pl", unit="points"),
        _measure,
    )  # fmt: skip


def _measure(judged: Sequence[Judged]) -> Table | None:
    """Parts: matched information and n-grams for each order, answer words, reference words, references.

    A choice of rows keeps the information weights of the whole set.
    """
    kept = with_references(judged)
    if not kept:
        return None
    references = [[tokens_13a(text) for text in each.row.references] for each in kept]
    weights = _information(references)
    parts = [
        _parts(tokens_13a(each.answer.text), refs, weights)
        for each, refs in zip(kept, references, strict=True)
    ]
    return Table(tuple(e.row.id for e in kept), np.array(parts, dtype=np.float64), _score, False)


def _information(references: Sequence[Sequence[Sequence[str]]]) -> dict[Ngram, float]:
    counts: Counter[Ngram] = Counter()
    for refs in references:
        for tokens in refs:
            counts.update(ngrams(tokens, _ORDER))
    total = sum(count for ngram, count in counts.items() if len(ngram) == 1)
    return {
        ngram: math.log2((counts[ngram[:-1]] if len(ngram) > 1 else total) / count)
        for ngram, count in counts.items()
    }


def _parts(
    answer: Sequence[str], references: Sequence[Sequence[str]], weights: dict[Ngram, float]
) -> list[float]:
    allowed: Counter[Ngram] = Counter()
    for tokens in references:
        allowed |= ngrams(tokens, _ORDER)
    matched = [0.0] * _ORDER
    for ngram, count in ngrams(answer, _ORDER).items():
        if ngram in allowed:
            matched[len(ngram) - 1] += min(count, allowed[ngram]) * weights[ngram]
    totals = [float(max(0, len(answer) - n)) for n in range(_ORDER)]
    return [*matched, *totals, len(answer), sum(map(len, references)), len(references), 1.0]


def _score(sums: Numbers) -> float:
    matched, totals = sums[:_ORDER], sums[_ORDER : 2 * _ORDER]
    said, referred, references, rows = sums[2 * _ORDER :]
    if not said or not referred:
        return 0.0
    gained = sum(m / t for m, t in zip(matched, totals, strict=True) if t)
    length = min(1.0, said / (referred / (references / rows)))
    return float(gained * math.exp(_BETA * math.log(length) ** 2))
