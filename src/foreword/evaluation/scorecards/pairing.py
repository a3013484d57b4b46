"""Intervals for values and for differences of two variants on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foreword.evaluation.metrics.metric import Numbers, Table
from foreword.evaluation.statistics.paired import Interval, paired_bootstrap


@dataclass(frozen=True)
class Sampling:
    """How intervals are made."""

    resamples: int = 2_000
    confidence: float = 0.95
    seed: int = 0


def value_interval(table: Table, sampling: Sampling) -> Interval:
    """The interval of a value: rows are drawn again with replacement."""
    if table.per_row:
        return _of_rows(table.row_values(), sampling)
    return _of_sums([table], lambda values: values[0], sampling)


def difference(table: Table, against: Table, sampling: Sampling) -> Interval:
    """The interval of `table` minus `against` over the rows both have, drawn in pairs."""
    common = [identity for identity in table.ids if identity in set(against.ids)]
    mine, theirs = table.only(common), against.only(common)
    if table.per_row and against.per_row:
        return _of_rows(mine.row_values() - theirs.row_values(), sampling)
    return _of_sums([mine, theirs], lambda values: values[0] - values[1], sampling)


def _of_rows(values: Numbers, sampling: Sampling) -> Interval:
    return paired_bootstrap(values, sampling.resamples, sampling.confidence, sampling.seed)


def _of_sums(
    tables: list[Table], combine: Callable[[list[float]], float], sampling: Sampling
) -> Interval:
    """Percentile bootstrap of a corpus metric: its sums over the drawn rows, combined.

    The p-value is two-sided: twice the smaller share of draws on one side of zero, with one draw added to
    both so that it is never 0.
    """
    n = tables[0].n
    estimate = combine([table.value for table in tables])
    drawn = _counts(n, sampling)
    sums = [drawn @ table.parts for table in tables]
    values = np.array([
        combine([table.combine(s[draw]) for table, s in zip(tables, sums, strict=True)])
        for draw in range(sampling.resamples)
    ])  # fmt: skip
    tail = (1 - sampling.confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    side = 1 + min(int((values <= 0).sum()), int((values >= 0).sum()))
    return Interval(
        low=float(low), high=float(high), estimate=estimate, n=n,
        p=min(1.0, 2 * side / (sampling.resamples + 1)),
    )  # fmt: skip


def _counts(n: int, sampling: Sampling) -> npt.NDArray[np.float64]:
    """How often each of `n` rows is drawn, `[resamples, n]`; the same for every table of `n` rows."""
    draw = np.random.default_rng([sampling.seed, n])
    return draw.multinomial(n, np.full(n, 1 / n), size=sampling.resamples).astype(np.float64)


