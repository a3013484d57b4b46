"""What a metric is: facts about it, and one vector of numbers per row that sums up to its value.

Sums make every metric cheap to resample: a choice of rows has the value of the sum of their vectors,
also for BLEU or macro F1, which are no means over rows. Paired intervals are made from that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from foreword.evaluation.checks import Outcome
from foreword.evaluation.golden import GoldenRow
from foreword.evaluation.runs.answers import Answer

Numbers = npt.NDArray[np.float64]
Better = Literal["higher", "lower", "neither"]
SHARE = "share"
"""The unit of what lies between 0 and 1."""


@dataclass(frozen=True)
class Judged:
    """One answer to one row, and what the row's checks say of it."""

    row: GoldenRow
    answer: Answer
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True)
class Table:
    """A metric measured on some answers of one variant."""

    ids: tuple[str, ...]
    """Rows the metric could be computed for, in the order of `parts`."""
    parts: Numbers
    """`[rows, k]`."""
    combine: Callable[[Numbers], float]
    """The value of summed parts `[k]`."""
    per_row: bool
    """The value is the mean of `row_values()`; otherwise those are for looking at single rows."""
    exchangeable: bool = True
    """The columns mean the same for every variant, so that rows can change sides in a test."""

    @property
    def n(self) -> int:
        return len(self.ids)

    @property
    def value(self) -> float:
        return self.combine(self.parts.sum(axis=0))

    def of(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> float:
        """The value over a choice of rows, by place, each as often as it is named."""
        return self.combine(self.parts[rows].sum(axis=0))

    def row_values(self) -> Numbers:
        """The metric of every row alone `[rows]`."""
        return np.array([self.combine(part) for part in self.parts])

    def only(self, ids: Sequence[str]) -> Table:
        """The part of it for these rows; those it does not have are left out."""
        places = {identity: place for place, identity in enumerate(self.ids)}
        kept = [identity for identity in ids if identity in places]
        parts = self.parts[[places[identity] for identity in kept]]
        return replace(self, ids=tuple(kept), parts=parts)


@dataclass(frozen=True)
class Facts:
    """What a number is."""

    name: str
    better: Better
    about: str
    """In a sentence, with the formula's source and settings."""
    version: int = 1
    """Goes up when the same answers get another value; values of two versions are not compared."""
    proxy: bool = False
    """It only stands for what is meant, and wants a calibration on labelled answers."""
    unit: str = SHARE


@dataclass(frozen=True)
class Measured:
    """A table, and what its numbers are."""

    facts: Facts
    table: Table


@dataclass(frozen=True)
class Metric:
    """Facts, and how it is measured on answers."""

    facts: Facts
    measure: Callable[[Sequence[Judged]], Table | None]
    """None if no row has what it needs."""

    @property
    def name(self) -> str:
        return self.facts.name


def row_metric(
    name: str,
    about: str,
    score: Callable[[Judged], float | None],
    *,
    version: int = 1,
    better: Better = "higher",
    proxy: bool = False,
    unit: str = SHARE,
) -> Metric:
    """A metric that is the mean of a number per row; rows for which it is None do not count."""

    def measure(judged: Sequence[Judged]) -> Table | None:
        scored = [(each.row.id, score(each)) for each in judged]
        return mean_table({identity: value for identity, value in scored if value is not None})

    return Metric(Facts(name, better, about, version, proxy, unit), measure)


def mean_table(values: dict[str, float]) -> Table | None:
    """The table of a mean over rows."""
    if not values:
        return None
    column = np.array(list(values.values()), dtype=np.float64)
    return Table(tuple(values), np.stack([column, np.ones_like(column)], axis=1), ratio, True)


def ratio(sums: Numbers) -> float:
    """The first sum over the second."""
    return float(sums[0] / sums[1]) if sums[1] else 0.0
