"""How often this very gate is wrong on these very rows: simulated, with intervals, for the verdict.

The rows that were judged are taken for the whole population. A simulated gate draws as many of them, with
replacement, and lets the two answers of each row change sides with probability one half, so that both
arms are equal by construction (A/A): `fail` is then a false one. For the false-pass rate one rule after
the other gets a loss of exactly its margin planted: answers of the candidate become worthless on a random
share of its rows, just large enough. The rule whose loss is missed most often gives the rate.

Rules that allow a margin are simulated; a floor is about the candidate alone, and metrics that are no
mean over rows (BLEU) would need a bootstrap within each simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foreword.evaluation.gates.policy import GatePolicy
from foreword.evaluation.gates.questions import Bounds, Question
from foreword.evaluation.gates.verdict import ErrorRates, Rate
from foreword.evaluation.metrics.metric import Table
from foreword.evaluation.statistics.bounded import p_not_above, p_not_below
from foreword.evaluation.statistics.error_rates import rate
from foreword.evaluation.statistics.multiplicity import holm
from foreword.evaluation.statistics.noninferiority import Outcome, above

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Arms:
    """A question as two columns over the rows of its set; NaN where a row is not part of it."""

    set: int
    mine: Numbers
    theirs: Numbers
    margin: float
    bounds: Bounds | None
    """Of a difference."""
    worst: float | None
    """What a worthless answer gets; None if there is no such value."""
    required: bool


def error_rates(
    own: Sequence[Question], policy: GatePolicy, ids: Sequence[Sequence[str]]
) -> ErrorRates | None:
    """Simulate `policy.simulations` gates on equal arms, and as many with each rule's loss planted.

    `ids` are the rows of every set. None if there is nothing to simulate.
    """
    arms = [
        _arms(each, each.theirs, ids)
        for each in own
        if each.theirs is not None and _can_be_simulated(each, each.theirs, policy)
    ]
    if not arms or not policy.simulations:
        return None
    sizes = [len(each) for each in ids]
    equal = [_gate(arms, policy, sizes, run) for run in range(policy.simulations)]
    planted = [_missed(arms, place, policy, sizes) for place in range(len(arms))]
    known = [count for count in planted if count is not None]
    return ErrorRates(
        _rate(max(known), policy.simulations) if known else None,
        _rate(equal.count("fail"), policy.simulations),
        _rate(equal.count("insufficient"), policy.simulations),
    )


def _can_be_simulated(question: Question, theirs: Table, policy: GatePolicy) -> bool:
    rows = question.mine.per_row and theirs.per_row
    return question.equal and rows and question.mine.n >= policy.smallest_n


def _arms(question: Question, theirs: Table, ids: Sequence[Sequence[str]]) -> _Arms:
    rows, own = ids[question.rows.set], question.own_bounds
    return _Arms(
        question.rows.set,
        _column(question.mine, rows),
        _column(theirs, rows),
        -question.threshold,
        question.bounds,
        own[0] if own else None,
        not question.rows.watched,
    )


def _column(table: Table, rows: Sequence[str]) -> Numbers:
    known = dict(zip(table.ids, table.row_values().tolist(), strict=True))
    return np.array([known.get(row, np.nan) for row in rows], dtype=np.float64)


def _gate(arms: Sequence[_Arms], policy: GatePolicy, sizes: Sequence[int], run: int) -> Outcome:
    """The outcome of one simulated gate on equal arms."""
    draw = np.random.default_rng([policy.seed, 0, run])
    rows = _rows(sizes, draw)
    values = [_drawn(each, rows[each.set]) for each in arms]
    tests = list(zip(arms, values, strict=True))
    if min(holm([_p_above(arm, drawn, policy) for arm, drawn in tests])) <= policy.alpha:
        return "fail"
    passed = all(_passes(arm, drawn, policy) for arm, drawn in tests if arm.required)
    return "pass" if passed else "insufficient"


def _missed(
    arms: Sequence[_Arms], place: int, policy: GatePolicy, sizes: Sequence[int]
) -> int | None:
    """How many gates passed although one rule's rows lost its margin; None if no such loss is possible."""
    arm = arms[place]
    lost = _loss(arm)
    if lost is None or not arm.required:
        return None
    others = [each for each in arms if each is not arm and each.required]
    missed = 0
    for run in range(policy.simulations):
        draw = np.random.default_rng([policy.seed, 1 + place, run])
        rows = _rows(sizes, draw)
        missed += _passes(arm, _drawn(arm, rows[arm.set], lost, draw), policy) and all(
            _passes(each, _drawn(each, rows[each.set]), policy) for each in others
        )
    return missed


def _loss(arm: _Arms) -> float | None:
    """Share of rows that become worthless; for values without bounds the loss of every row."""
    if arm.worst is None:
        return arm.margin
    level = float(np.nanmean((arm.mine + arm.theirs) / 2)) - arm.worst
    return arm.margin / level if 0 < arm.margin <= level else None


def _rows(sizes: Sequence[int], draw: np.random.Generator) -> list[tuple[Places, Flags]]:
    """For every set the rows that are drawn, and whether their answers change sides."""
    return [(draw.integers(0, size, size), draw.random(size) < 0.5) for size in sizes]


def _drawn(
    arm: _Arms,
    rows: tuple[Places, Flags],
    lost: float | None = None,
    draw: np.random.Generator | None = None,
) -> Numbers:
    """Differences of the drawn rows that are part of the rule."""
    places, swap = rows
    mine = np.where(swap, arm.theirs[places], arm.mine[places])
    theirs = np.where(swap, arm.mine[places], arm.theirs[places])
    if lost is not None and draw is not None:
        gone = draw.random(len(mine)) < lost
        mine = mine - lost if arm.worst is None else np.where(gone, arm.worst, mine)
    change: Numbers = mine - theirs
    return change[~np.isnan(change)]


def _passes(arm: _Arms, values: Numbers, policy: GatePolicy) -> bool:
    """As `decide.evidence` decides it."""
    threshold = -arm.margin
    if len(values) < policy.smallest_n or values.mean() <= threshold:
        return False
    if arm.bounds is None:
        return above(values, threshold, alpha=policy.alpha, bounds=None).outcome == "pass"
    return p_not_above(values, threshold, arm.bounds[0]) <= policy.alpha


def _p_above(arm: _Arms, values: Numbers, policy: GatePolicy) -> float:
    """Small speaks for a fail."""
    threshold = -arm.margin
    if len(values) < policy.smallest_n or values.mean() >= threshold:
        return 1.0
    if arm.bounds is None:
        return above(values, threshold, alpha=policy.alpha, bounds=None).p_above
    return p_not_below(values, threshold, arm.bounds[1])


def _rate(count: int, of: int) -> Rate:
    found = rate(count, of)
    return Rate(found.share, found.low, found.high, of)
