"""All metrics by name, and how a suite is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from foreword.errors import UsageError
from foreword.evaluation.checks import CheckFunction, Subject, run_checks
from foreword.evaluation.golden import GoldenRow
from foreword.evaluation.metrics import (
    coco,
    degeneration,
    effort,
    grounding,
    labels,
    nist,
    overlap,
    published,
    relevancy,
    structured,
    tasks,
)
from foreword.evaluation.metrics.metric import Judged, Measured, Metric
from foreword.evaluation.metrics.relevancy import Embed
from foreword.evaluation.runs.answers import Answer

NOT_COMPUTED: Mapping[str, str] = {
    "meteor": "needs Java, meteor-1.5.jar and its paraphrase table; no faithful equal without them is "
    "known",
    "rouge_l": "the official figure needs the tokenizer of Stanford's CoreNLP (Java); rouge_l_13a is "
    "near to it",
    "cider": "the official figure needs the tokenizer of Stanford's CoreNLP (Java); cider_13a is near "
    "to it",
}
"""Metrics somebody may look for, and why they are not here."""


def suite(names: Iterable[str] | None = None, *, embed: Embed | None = None) -> tuple[Metric, ...]:
    """The metrics of these names, or all; `embed` makes answer relevancy one of meaning.

    Raises:
        UsageError: a name is not known, or its metric is not computed here and why (`metric.name`).
    """
    known = {metric.name: metric for metric in _all(embed)}
    chosen = tuple(known) if names is None else tuple(names)
    for name in chosen:
        if name not in known:
            raise _unknown(name, known)
    return tuple(known[name] for name in chosen)


def judged_rows(
    rows: Sequence[GoldenRow],
    answers: Mapping[str, Answer],
    functions: Mapping[str, CheckFunction] | None = None,
) -> list[Judged]:
    """The rows that have an answer, with the outcomes of their checks."""
    return [
        Judged(
            row, answers[row.id], run_checks(row.checks, _subject(row, answers), functions or {})
        )
        for row in rows
        if row.id in answers
    ]


def measure(metrics: Iterable[Metric], judged: Sequence[Judged]) -> list[Measured]:
    """The tables of the metrics that some row has what they need for."""
    tables = [(metric.facts, metric.measure(judged)) for metric in metrics]
    return [Measured(facts, table) for facts, table in tables if table is not None]


def _subject(row: GoldenRow, answers: Mapping[str, Answer]) -> Subject:
    return Subject(answers[row.id].text, row.references, row.to_json())


def _all(embed: Embed | None) -> tuple[Metric, ...]:
    return (
        tasks.task_completion(), tasks.check_score(), overlap.exact_match(), labels.accuracy(),
        labels.macro_f1(), labels.micro_f1(), overlap.token_f1(), published.bleu(), published.chrf(),
        nist.nist(), coco.rouge_l(), coco.cider(), structured.json_valid(),
        structured.schema_conformance(), structured.field_f1(), grounding.groundedness(),
        relevancy.answer_relevancy(embed), tasks.refusal_correctness(), degeneration.empty(),
        degeneration.same_answer(), degeneration.distinct_2(), degeneration.longest_repeat(),
        effort.length(), effort.tokens(), effort.latency(),
    )  # fmt: skip


def _unknown(name: str, known: Mapping[str, Metric]) -> UsageError:
    if name in NOT_COMPUTED:
        return UsageError(f"{name} is not computed here: {NOT_COMPUTED[name]}", code="metric.name")
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"metrics are {', '.join(known)}"
    return UsageError(f"there is no metric {name[:80]!r}; {hint}", code="metric.name")
