"""From a policy and what was measured to plain questions: is this mean above that threshold?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from foreword.evaluation.gates.policy import (
    BASE,
    CANDIDATE,
    INCUMBENT,
    GatePolicy,
    Learned,
    Rule,
)
from foreword.evaluation.golden import ANY, OFF_TASK, SAFETY, GoldenRow, GoldenSet
from foreword.evaluation.metrics.metric import Facts, Measured, Table
from foreword.evaluation.scorecards.evaluation import Evaluation

Numbers = npt.NDArray[np.float64]
Bounds = tuple[float, float]

_SHARE: Bounds = (0.0, 1.0)
_COSINE: Bounds = (-1.0, 1.0)
_BOUNDS: Mapping[str, Bounds] = {
    "answer_relevancy": _COSINE, "answer_relevancy_4grams": _COSINE, "bleu": _SHARE, "chrf": _SHARE,
    "cider_13a": (0.0, 10.0),
}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """Part of a set that a rule is about."""

    set: int
    """Its place among the evaluations."""
    label: str
    ids: tuple[str, ...]
    watched: bool = False


@dataclass(frozen=True)
class Question:
    """One limit on some rows. Tables are turned so that higher is better."""

    rule: str
    rows: Rows
    threshold: float
    """The mean, or the difference of `mine` minus `theirs`, has to be above it."""
    facts: Facts
    mine: Table
    theirs: Table | None = None
    """None: the candidate's value itself is asked about."""
    turned: bool = False
    """Its values were taken with the other sign."""
    equal: bool = False
    """Arms that are equal have to pass: it allows a margin, it asks for no gain."""

    @property
    def own_bounds(self) -> Bounds | None:
        """Smallest and largest value of `mine` a row can have; None if there are none."""
        own = _BOUNDS.get(self.facts.name) or (_SHARE if self.facts.unit == "share" else None)
        return (-own[1], -own[0]) if own and self.turned else own

    @property
    def bounds(self) -> Bounds | None:
        """The same of what is asked about: a value or a difference."""
        own = self.own_bounds
        if own is None or self.theirs is None:
            return own
        return own[0] - own[1], own[1] - own[0]


@dataclass(frozen=True)
class Unasked:
    """A rule that could not become a question, and why: not enough evidence."""

    rule: str
    rows: str
    reason: str


def questions(
    policy: GatePolicy, evaluations: Sequence[Evaluation]
) -> Iterator[Question | Unasked]:
    """Every limit of every rule, on all rows it is about and on their cohorts."""
    for rule in (*policy.rules, *policy.compulsory):
        found = list(rows_of(rule, [each.replay.golden for each in evaluations]))
        if not found:
            yield Unasked(
                _named(rule), _wanted(rule), "no such rows were judged; add them to the run"
            )
        for rows in found:
            yield from _of_rule(rule, rows, evaluations[rows.set])
    if policy.learned and policy.learned.metric:
        yield from _learned(policy.learned, policy.learned.metric, evaluations)


def limits(rule: Rule) -> Iterator[tuple[str, float | None]]:
    """The words for each limit that is set, and the margin if it is one."""
    for word, value in (("at least", rule.least), ("at most", rule.most)):
        if value is not None:
            yield f"{rule.metric} {word} {value:g}", None
    if rule.margin is not None:
        yield f"{rule.metric} within {rule.margin:g} of the {rule.against}", rule.margin
    if rule.cohort_margin is not None:
        yield (
            f"{rule.metric} within {rule.cohort_margin:g} of the {rule.against}",
            rule.cohort_margin,
        )


def rows_of(rule: Rule, sets: Sequence[GoldenSet]) -> Iterator[Rows]:
    """The rows a rule is about, set by set."""
    for place, golden in enumerate(sets):
        if rule.set is not None and rule.set != golden.header.name:
            continue
        own = rule.set is None and rule.tag is None
        if own and golden.header.specialty == ANY:
            continue
        rows = [row for row in golden.rows if _is_about(rule, row, own)]
        if rows:
            label = golden.label + (f" #{rule.tag}" if rule.tag else "")
            yield Rows(place, label, tuple(row.id for row in rows))


def _is_about(rule: Rule, row: GoldenRow, own: bool) -> bool:
    if own:
        return not {SAFETY, OFF_TASK} & set(row.tags)
    return rule.tag is None or rule.tag in row.tags


def _of_rule(rule: Rule, rows: Rows, evaluation: Evaluation) -> Iterator[Question | Unasked]:
    mine = _measured(evaluation, CANDIDATE, rule.metric, rows)
    if mine is None:
        yield Unasked(_named(rule), rows.label, f"no row has what {rule.metric} needs")
        return
    label = rule.metric + (" (proxy)" if mine.facts.proxy else "")
    if rule.least is not None:
        yield Question(f"{label} at least {rule.least:g}", rows, rule.least, mine.facts, mine.table)
    if rule.most is not None:
        table = _turned(mine.table)
        yield Question(
            f"{label} at most {rule.most:g}", rows, -rule.most, mine.facts, table, turned=True
        )
    if rule.margin is not None or rule.cohort_margin is not None:
        yield from _margins(rule, label, rows, mine, evaluation)


def _margins(
    rule: Rule, label: str, rows: Rows, mine: Measured, evaluation: Evaluation
) -> Iterator[Question | Unasked]:
    """Against the incumbent, or the base where there is none."""
    names = {variant.name for variant in evaluation.replay.variants}
    other = INCUMBENT if rule.against == INCUMBENT and INCUMBENT in names else BASE
    theirs = _measured(evaluation, other, rule.metric, rows)
    if theirs is None:
        yield Unasked(_named(rule), rows.label, f"no {rule.against} was judged to compare with")
        return
    for part, margin in _parts(rule, rows, evaluation.replay.golden, mine.table):
        text = f"{label} within {margin:g} of the {other}"
        yield _comparison(text, part, -margin, mine, theirs, equal=True)


def _comparison(
    text: str, rows: Rows, threshold: float, mine: Measured, theirs: Measured, *, equal: bool
) -> Question:
    first, second = (_cut(each.table, rows.ids) for each in (mine, theirs))
    lower = mine.facts.better == "lower"
    if lower:
        first, second = _turned(first), _turned(second)
    return Question(text, rows, threshold, mine.facts, first, second, turned=lower, equal=equal)


def _parts(rule: Rule, rows: Rows, golden: GoldenSet, table: Table) -> Iterator[tuple[Rows, float]]:
    if rule.margin is not None:
        yield rows, rule.margin
    if rule.cohort_margin is None or not set(table.ids) & set(rows.ids):
        return
    for part in cohorts_of(rule, rows, golden):
        yield part, rule.cohort_margin


def cohorts_of(rule: Rule, rows: Rows, golden: GoldenSet) -> Iterator[Rows]:
    """The rows of each cohort among these."""
    wanted = set(rows.ids)
    cohorts: dict[str, list[str]] = {}
    for row in golden.rows:
        if row.id in wanted:
            cohorts.setdefault(row.cohort, []).append(row.id)
    for cohort, ids in sorted(cohorts.items()):
        label = f"{rows.label}, cohort {cohort}"
        yield Rows(rows.set, label, tuple(ids), rule.cohorts == "watched")


def _learned(
    learned: Learned, metric: str, evaluations: Sequence[Evaluation]
) -> Iterator[Question | Unasked]:
    text = f"{metric} more than {learned.least:g} better than the base"
    own = Rule(metric=metric, margin=0.0)
    for rows in rows_of(own, [each.replay.golden for each in evaluations]):
        evaluation = evaluations[rows.set]
        mine = _measured(evaluation, CANDIDATE, metric, rows)
        base = _measured(evaluation, BASE, metric, rows)
        if mine is None or base is None:
            reason = "the base was not judged, or no row has what the metric needs"
            yield Unasked(text, rows.label, reason)
        else:
            yield _comparison(text, rows, learned.least, mine, base, equal=False)


def _measured(evaluation: Evaluation, variant: str, metric: str, rows: Rows) -> Measured | None:
    found = evaluation.measured.get(variant, {}).get(metric)
    if found is None:
        return None
    table = _cut(found.table, rows.ids)
    return Measured(found.facts, table) if table.n else None


def _cut(table: Table, ids: Sequence[str]) -> Table:
    """The part for these rows; what was measured on other texts, such as perplexity, stays whole."""
    return table.only(ids) if set(table.ids) & set(ids) else table


def _turned(table: Table) -> Table:
    combine = table.combine
    return replace(table, combine=lambda sums: -combine(sums))


def _named(rule: Rule) -> str:
    return ", ".join(dict.fromkeys(text for text, _ in limits(rule)))


def _wanted(rule: Rule) -> str:
    words = [f"set {rule.set}" if rule.set else "", f"#{rule.tag}" if rule.tag else ""]
    return " ".join(filter(None, words)) or "rows of the specialty"
