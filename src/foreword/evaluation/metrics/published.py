"""BLEU and chrF as sacrebleu computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from foreword.evaluation.metrics.metric import Facts, Judged, Metric, Numbers, Table
from foreword.evaluation.metrics.words import sacrebleu


def bleu() -> Metric:
    """Equal to the official figures of the E2E challenge to 4 digits (bench/metrics.py)."""
    return Metric(
        Facts("bleu", "higher", "corpus BLEU, 0 to 1: sacrebleu, 13a tokens, lower case, exponential "
              "smoothing", unit="points"),
        lambda judged: _measure(judged, sacrebleu().BLEU(lowercase=True, force=True)),
    )  # fmt: skip


def chrf() -> Metric:
    return Metric(
        Facts("chrf", "higher", "corpus chrF2, 0 to 1: sacrebleu, character 6-grams, with case",
              unit="points"),
        lambda judged: _measure(judged, sacrebleu().CHRF()),
    )  # fmt: skip


def with_references(judged: Sequence[Judged]) -> list[Judged]:
    return [each for each in judged if each.row.references]


def _measure(judged: Sequence[Judged], metric: Any) -> Table | None:
    """The library's own statistics per row; it sums them itself to score a corpus."""
    kept = with_references(judged)
    if not kept:
        return None
    most = max(len(each.row.references) for each in kept)
    streams = [
        [refs[i] if i < len(refs) else None for refs in (each.row.references for each in kept)]
        for i in range(most)
    ]
    answers = [each.answer.text.strip() for each in kept]
    statistics = metric._extract_corpus_statistics(answers, streams)

    def combine(sums: Numbers) -> float:
        return float(metric._compute_score_from_stats([int(s) for s in sums]).score) / 100

    ids = tuple(each.row.id for each in kept)
    return Table(ids, np.array(statistics, dtype=np.float64), combine, per_row=False)
