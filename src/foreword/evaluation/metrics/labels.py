"""Accuracy and F1 over labels: the answer as a whole is the label it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from foreword.evaluation.metrics.metric import Facts, Judged, Metric, Numbers, Table, row_metric
from foreword.evaluation.metrics.overlap import f1


def accuracy() -> Metric:
    return row_metric("accuracy", "the answer is the right label, but for case and '_-'", _right)


def macro_f1() -> Metric:
    return Metric(
        Facts("label_f1_macro", "higher", "F1 of each label that occurs, averaged over labels, so that "
              "rare ones count as much"),
        lambda judged: _measure(judged, _macro),
    )  # fmt: skip


def micro_f1() -> Metric:
    return Metric(
        Facts("label_f1_micro", "higher", "F1 over all rows together; an answer that is no label is a "
              "miss and no false alarm"),
        lambda judged: _measure(judged, _micro),
    )  # fmt: skip


def label_of(text: str) -> str:
    """What an answer or a label comes to: without case, end marks, and differences of '_', '-', ' '."""
    return " ".join(
        text.casefold().strip(" \t\r\n.!\"'`").replace("_", " ").replace("-", " ").split()
    )


def _right(judged: Judged) -> float | None:
    if judged.row.label is None:
        return None
    return float(label_of(judged.answer.text) == label_of(judged.row.label))


def _measure(judged: Sequence[Judged], combine: Callable[[Numbers], float]) -> Table | None:
    """Parts: for each label, how often it was right, said and wanted."""
    kept = [(each, label_of(each.row.label)) for each in judged if each.row.label is not None]
    if not kept:
        return None
    labels = {label: place for place, label in enumerate(sorted({label for _, label in kept}))}
    parts = np.zeros((len(kept), 3, len(labels)))
    for number, (each, wanted) in enumerate(kept):
        said = label_of(each.answer.text)
        parts[number, 0, labels[wanted]] = said == wanted
        parts[number, 2, labels[wanted]] = 1
        if said in labels:
            parts[number, 1, labels[said]] = 1
    ids = tuple(each.row.id for each, _ in kept)
    return Table(ids, parts.reshape(len(kept), -1), combine, per_row=False)


def _macro(sums: Numbers) -> float:
    right, said, wanted = sums.reshape(3, -1)
    occurs = wanted > 0
    scores = [
        f1(*counts) for counts in zip(right[occurs], said[occurs], wanted[occurs], strict=True)
    ]
    return float(np.mean(scores)) if scores else 0.0


def _micro(sums: Numbers) -> float:
    right, said, wanted = sums.reshape(3, -1).sum(axis=1)
    return f1(float(right), float(said), float(wanted))
