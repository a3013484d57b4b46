"""Answers that people labelled good or bad, and proxies calibrated on them.

A line is `{"row": ID, "answer": TEXT, "good": true}`. The answer is part of it: a label is about a text,
and whichever variant gave it, the proxies are computed on that very text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foreword.artifact.fields import Fields
from foreword.errors import ArtifactError, DataError
from foreword.evaluation.checks import CheckFunction
from foreword.evaluation.golden import GoldenRow, GoldenSet
from foreword.evaluation.golden.reading import Problem, json_lines
from foreword.evaluation.metrics.calibration import Calibration, calibrate
from foreword.evaluation.metrics.metric import Judged, Measured, Metric
from foreword.evaluation.metrics.suite import judged_rows, measure
from foreword.evaluation.runs.answers import Answer

_SHOWN = 5


@dataclass(frozen=True)
class Labelled:
    """Labelled answers, each as a row of its own."""

    judged: tuple[Judged, ...]
    good: Mapping[str, bool]
    """By the id of its row in `judged`, which is `ID#number`: one row may have several answers."""


def read_labelled(
    path: Path, golden: GoldenSet, functions: Mapping[str, CheckFunction] | None = None
) -> Labelled:
    """Read a file of labels for answers to rows of `golden`.

    Raises:
        DataError: there is no such file (`golden.missing`), or lines cannot be used
            (`labels.bad_lines`); the message names the first few with file and line.
    """
    rows = {row.id: row for row in golden.rows}
    kept: dict[str, tuple[GoldenRow, Answer, bool]] = {}
    problems: list[Problem] = []
    for number, (source, value) in enumerate(json_lines(path), 1):
        if isinstance(value, Problem):
            problems.append(value)
            continue
        try:
            row, answer, good = _line(value, rows)
        except (ArtifactError, ValueError) as e:
            problems.append(Problem(source, str(e)))
            continue
        name = f"{row.id}#{number}"
        kept[name] = (replace(row, id=name), answer, good)
    if problems or not kept:
        raise _bad(path, problems)
    answers = {name: answer for name, (_, answer, _) in kept.items()}
    judged = judged_rows([row for row, _, _ in kept.values()], answers, functions)
    return Labelled(tuple(judged), {name: good for name, (_, _, good) in kept.items()})


def calibrations(
    labelled: Labelled, metrics: Iterable[Metric], extra: Sequence[Measured] = ()
) -> tuple[Calibration, ...]:
    """Every proxy among `metrics` that these rows have what it needs for; `extra` is as it is.

    `extra` holds what was measured on `labelled.judged` elsewhere, such as what a judge said.

    Raises:
        DataError: the labels are of one kind only (`calibration.labels`).
    """
    proxies = [metric for metric in metrics if metric.facts.proxy]
    found = [*measure(proxies, labelled.judged), *extra]
    return tuple(calibrate(measured, labelled.good) for measured in found)


def _line(value: Any, rows: Mapping[str, GoldenRow]) -> tuple[GoldenRow, Answer, bool]:
    fields = Fields(value, "label")
    name, text, good = fields.text("row"), fields.text("answer"), fields.boolean("good")
    fields.done()
    text.encode()  # half a character is refused here, with its line
    if name not in rows:
        raise ValueError(f"the golden set has no row {name[:80]!r}")
    return rows[name], Answer(text, None), good


def _bad(path: Path, problems: Sequence[Problem]) -> DataError:
    shown = "; ".join(str(problem) for problem in problems[:_SHOWN]) or f"{path} has no lines"
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return DataError(
        f'{shown}{more}; expected lines {{"row": ID, "answer": TEXT, "good": true or false}}',
        code="labels.bad_lines",
    )
