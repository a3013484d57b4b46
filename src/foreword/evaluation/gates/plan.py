"""What a gate could decide with the rows there are, told before anything is generated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from foreword.evaluation.gates.policy import GatePolicy
from foreword.evaluation.gates.questions import Rows, cohorts_of, rows_of
from foreword.evaluation.golden import GoldenSet
from foreword.evaluation.statistics.power import power_of, rows_needed, variance_of_discordance

DISCORDANCE = 0.2
"""Rows on which two variants differ wholly, if nothing is known: a fifth."""


@dataclass(frozen=True)
class Planned:
    """A margin on some rows."""

    rule: str
    rows: str
    n: int
    power: float
    """How often a candidate as good as the incumbent passes it."""
    needed: int
    """Rows for the power the policy asks for."""

    def to_json(self) -> dict[str, object]:
        return dict(vars(self))


def plan(
    policy: GatePolicy, sets: Sequence[GoldenSet], discordance: float = DISCORDANCE
) -> tuple[Planned, ...]:
    """Every margin of a policy on the rows of these sets, for metrics from 0 to 1."""
    return tuple(
        _planned(f"{rule.metric} within {margin:g}", rows, margin, policy, discordance)
        for rule in (*policy.rules, *policy.compulsory)
        for whole in rows_of(rule, sets)
        for rows, margin in _margins(whole, rule.margin, rule.cohort_margin,
                                     list(cohorts_of(rule, whole, sets[whole.set])))
    )  # fmt: skip


def _margins(
    whole: Rows, margin: float | None, cohort_margin: float | None, cohorts: Sequence[Rows]
) -> Iterator[tuple[Rows, float]]:
    if margin:
        yield whole, margin
    if cohort_margin:
        yield from ((cohort, cohort_margin) for cohort in cohorts)


def _planned(
    rule: str, rows: Rows, margin: float, policy: GatePolicy, discordance: float
) -> Planned:
    n, alpha, variance = len(rows.ids), policy.alpha, variance_of_discordance(discordance)
    power = power_of(n, variance, margin, alpha=alpha) if n >= policy.smallest_n else 0.0
    needed = rows_needed(variance, margin, alpha=alpha, power=policy.power)
    return Planned(rule, rows.label, n, power, max(needed, policy.smallest_n))
