"""How often a gate would be wrong on these very rows: simulated, with intervals, for its verdict.

The rows of a set are taken for the whole population. Each simulation draws as many rows with replacement
and lets the two answers of each row change sides with probability one half, so that both arms are
equal by construction: a `fail` is then a false one. For false passes a regression of a known size is
planted: answers of the candidate become worthless on a random share of the rows, just large enough.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foreword.errors import UsageError
from foreword.evaluation.statistics.bounded import p_not_above, p_not_below
from foreword.evaluation.statistics.distributions import normal_quantile
from foreword.evaluation.statistics.multiplicity import holm
from foreword.evaluation.statistics.noninferiority import Outcome

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """The values of both variants on the same rows of a cohort `[n]`, higher is better."""

    candidate: Numbers
    incumbent: Numbers
    worst: float = 0.0
    """What a worthless answer gets."""


Gate = Callable[[Mapping[str, Pair]], Outcome]
"""Decides on the pairs by cohort."""


@dataclass(frozen=True)
class Rate:
    """How often something happened, with Wilson's interval (1927)."""

    count: int
    of: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.count / self.of


@dataclass(frozen=True)
class Rates:
    """The outcomes of many simulated gates."""

    passes: Rate
    fails: Rate
    insufficient: Rate
    planted: float
    """The loss of the candidate; 0 in an A/A run."""
    cohort: str | None
    """That lost; None if all did, or none."""


def margin_gate(margin: float, alpha: float = 0.05) -> Gate:
    """A gate that asks one thing: in each cohort, not worse than the incumbent by more than the margin.

    It decides as `as_family(noninferior(...))` does, without the intervals, for values from 0 to 1.
    """

    def gate(cohorts: Mapping[str, Pair]) -> Outcome:
        differences = [pair.candidate - pair.incumbent for pair in cohorts.values()]
        if all(p_not_above(each, -margin, -1.0) <= alpha for each in differences):
            return "pass"
        worse = holm([p_not_below(each, -margin, 1.0) for each in differences])
        return "fail" if min(worse) <= alpha else "insufficient"

    return gate


def simulate(
    cohorts: Mapping[str, Pair],
    gate: Gate,
    simulations: int,
    seed: int,
    *,
    planted: float = 0.0,
    cohort: str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Rates:
    """Outcomes of a gate on equal arms, or with a loss planted in one cohort (None: in all).

    `sizes` draws other numbers of rows than there are, to see what more rows would bring.

    Raises:
        UsageError: a cohort without rows, or too good a loss to plant (`rates.planted`).
    """
    shares = {
        name: _share(pair, planted) if cohort in (None, name) else 0.0
        for name, pair in cohorts.items()
    }
    found: Counter[Outcome] = Counter()
    for run in range(simulations):
        draw = np.random.default_rng([seed, run])
        drawn = {
            name: _drawn(pair, (sizes or {}).get(name, len(pair.candidate)), shares[name], draw)
            for name, pair in cohorts.items()
        }
        found[gate(drawn)] += 1
    counts: Sequence[Outcome] = ("pass", "fail", "insufficient")
    passes, fails, insufficient = (rate(found[each], simulations) for each in counts)
    return Rates(passes, fails, insufficient, planted, cohort)


def rate(count: int, of: int, confidence: float = 0.95) -> Rate:
    """A share with Wilson's interval."""
    z2 = normal_quantile((1 + confidence) / 2) ** 2
    share, weight = count / of, 1 + z2 / of
    middle = (share + z2 / (2 * of)) / weight
    reach = math.sqrt(z2 * (share * (1 - share) / of + z2 / (4 * of * of))) / weight
    return Rate(count, of, max(0.0, middle - reach), min(1.0, middle + reach))


def _drawn(pair: Pair, size: int, share: float, draw: np.random.Generator) -> Pair:
    places = draw.integers(0, len(pair.candidate), size)
    swap = draw.random(size) < 0.5
    candidate = np.where(swap, pair.incumbent[places], pair.candidate[places])
    incumbent = np.where(swap, pair.candidate[places], pair.incumbent[places])
    if share:
        candidate = np.where(draw.random(size) < share, pair.worst, candidate)
    return Pair(candidate, incumbent, pair.worst)


def _share(pair: Pair, planted: float) -> float:
    """Of the rows that become worthless: the mean of equal arms falls by `planted` then."""
    if len(pair.candidate) == 0 or len(pair.candidate) != len(pair.incumbent):
        raise UsageError("expected a cohort with rows, the same on both sides", code="rates.rows")
    most = float((pair.candidate.mean() + pair.incumbent.mean()) / 2 - pair.worst)
    if planted > most:
        raise UsageError(
            f"a loss of {planted} cannot be planted where the values are only {most:.4g} above the worst",
            code="rates.planted",
        )
    return planted / most if planted else 0.0
