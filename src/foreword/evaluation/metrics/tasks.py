"""Metrics made of the checks of a row."""

from __future__ import annotations

from foreword.evaluation.metrics.metric import Judged, Metric, row_metric

_REFUSAL = "refusal"


def task_completion() -> Metric:
    return row_metric("task_completion", "all checks of the row pass", _complete)


def check_score() -> Metric:
    return row_metric("check_score", "mean score of the row's checks", _score)


def refusal_correctness() -> Metric:
    return row_metric(
        "refusal_correctness",
        "the answer declines where it should and helps where it should; told by phrases",
        _refusals,
        proxy=True,
    )


def _complete(judged: Judged) -> float | None:
    return float(all(o.passed for o in judged.outcomes)) if judged.outcomes else None


def _score(judged: Judged) -> float | None:
    scores = [outcome.score for outcome in judged.outcomes]
    return sum(scores) / len(scores) if scores else None


def _refusals(judged: Judged) -> float | None:
    outcomes = [
        outcome.passed
        for check, outcome in zip(judged.row.checks, judged.outcomes, strict=True)
        if check.kind == _REFUSAL
    ]
    return float(all(outcomes)) if outcomes else None
