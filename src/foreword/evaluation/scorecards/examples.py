"""The rows on which two variants differ most, with the texts side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foreword.evaluation.scorecards.evaluation import Evaluation

PREFERRED = (
    "check_score", "accuracy", "field_f1", "rouge_l_13a", "token_f1", "groundedness",
    "answer_relevancy", "answer_relevancy_4grams",
)  # fmt: skip
"""Metrics with a graded value per row, best first."""
_MOST_TEXT = 2_000


@dataclass(frozen=True)
class Example:
    """One row answered by two variants."""

    row: str
    cohort: str
    input: str
    references: tuple[str, ...]
    candidate: str
    against: str
    change: float
    """Of the metric, candidate minus the other."""


@dataclass(frozen=True)
class Examples:
    """Biggest wins and losses of one pair."""

    candidate: str
    against: str
    metric: str
    wins: tuple[Example, ...]
    losses: tuple[Example, ...]


def biggest(evaluation: Evaluation, candidate: str, against: str, most: int) -> Examples | None:
    """At most so many rows each way, by the first preferred metric on which rows differ."""
    for metric in PREFERRED:
        changes = _changes(evaluation, metric, candidate, against)
        if any(changes.values()):
            break
    else:
        return None
    ordered = sorted(changes, key=lambda row: (-changes[row], row))
    wins = [row for row in ordered[:most] if changes[row] > 0]
    losses = [row for row in ordered[::-1][:most] if changes[row] < 0]

    def shown(rows: Sequence[str]) -> tuple[Example, ...]:
        return tuple(_example(evaluation, row, candidate, against, changes[row]) for row in rows)

    return Examples(candidate, against, metric, shown(wins), shown(losses))


def _changes(evaluation: Evaluation, metric: str, candidate: str, against: str) -> dict[str, float]:
    sides = [evaluation.measured[name].get(metric) for name in (candidate, against)]
    if sides[0] is None or sides[1] is None:
        return {}
    mine, theirs = (
        dict(zip(side.table.ids, side.table.row_values().tolist(), strict=True))
        for side in sides
        if side is not None
    )
    return {row: mine[row] - theirs[row] for row in mine if row in theirs}


def _example(
    evaluation: Evaluation, row: str, candidate: str, against: str, change: float
) -> Example:
    (found,) = (each for each in evaluation.replay.golden.rows if each.id == row)
    answers = evaluation.replay.answers
    return Example(
        row,
        found.cohort,
        _cut(found.text),
        tuple(_cut(text) for text in found.references[:2]),
        _cut(answers[candidate][row].text),
        _cut(answers[against][row].text),
        change,
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
