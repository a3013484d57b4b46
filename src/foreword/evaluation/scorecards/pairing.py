"""Intervals for values, and for differences of two variants on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from foreword.evaluation.metrics.metric import Numbers, Table
from foreword.evaluation.statistics.paired import Interval, blocks, p_of, paired_bootstrap

_MOST_KEPT = 1 << 23
"""Numbers of a draw that is kept for the next metric: 16 MB."""


@dataclass(frozen=True)
class Sampling:
    """How intervals are made."""

    resamples: int = 2_000
    confidence: float = 0.95
    seed: int = 0


def value_interval(table: Table, sampling: Sampling, *, share: bool = False) -> Interval:
    """The interval of a value: rows are drawn again with replacement. Its `p` means nothing.

    `share`: the value is from 0 to 1, and its interval never has the width 0 (`_widened`).
    """
    if table.per_row:
        found = _of_rows(table.row_values(), sampling)
    else:
        found = _of_sums([table], lambda values: values[0], sampling)
    return _widened(found, sampling, 0.0, 1.0) if share else found


def difference(
    table: Table, against: Table, sampling: Sampling, *, share: bool = False
) -> Interval:
    """The interval of `table` minus `against` over the rows both have, drawn in pairs.

    `p` is of the permutation test: each row's two answers change sides with probability one half.
    Where answers cannot change sides it is 1, and the interval alone tells.
    """
    found = _difference(table, against, sampling)
    return _widened(found, sampling, -1.0, 1.0) if share else found


def _difference(table: Table, against: Table, sampling: Sampling) -> Interval:
    known = set(against.ids)
    common = [identity for identity in table.ids if identity in known]
    mine, theirs = table.only(common), against.only(common)
    if table.per_row and against.per_row:
        return _of_rows(mine.row_values() - theirs.row_values(), sampling)
    found = _of_sums([mine, theirs], lambda values: values[0] - values[1], sampling)
    if not (mine.exchangeable and theirs.exchangeable):
        return found
    return replace(found, p=p_of(_swapped(mine, theirs, sampling), found.estimate))


def _widened(found: Interval, sampling: Sampling, least: float, most: float) -> Interval:
    """An interval of width 0 as wide as rows that were not drawn may make it.

    Where all rows agree, drawing them again shows nothing: of n rows all alike, as many as
    1 - (alpha/2)^(1/n) of the others may still differ (Clopper and Pearson 1934).
    """
    if found.low < found.high:
        return found
    room = 1 - ((1 - sampling.confidence) / 2) ** (1 / found.n)
    low, high = max(least, found.estimate - room), min(most, found.estimate + room)
    return replace(found, low=low, high=high)


def _of_rows(values: Numbers, sampling: Sampling) -> Interval:
    return paired_bootstrap(values, sampling.resamples, sampling.confidence, sampling.seed)


def _of_sums(
    tables: Sequence[Table], combine: Callable[[list[float]], float], sampling: Sampling
) -> Interval:
    """Percentile bootstrap of a metric that is no mean: the sums over the drawn rows, combined."""
    n = tables[0].n
    estimate = combine([table.value for table in tables])
    values = [
        combine([table.combine(s[draw]) for table, s in zip(tables, sums, strict=True)])
        for counts in _counts(n, sampling)
        for sums in [[counts @ table.parts for table in tables]]
        for draw in range(len(counts))
    ]
    tail = (1 - sampling.confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high), estimate, n, p=1.0)


def _counts(n: int, sampling: Sampling) -> Iterator[npt.NDArray[np.float64]]:
    """How often each of `n` rows is drawn, `[resamples, n]` in blocks."""
    small = n * sampling.resamples <= _MOST_KEPT
    drawn = _kept(n, sampling) if small else _drawn(n, sampling)
    return (block.astype(np.float64) for block in drawn)


@lru_cache(maxsize=8)
def _kept(n: int, sampling: Sampling) -> tuple[npt.NDArray[np.uint16], ...]:
    """Drawing takes longer than summing, and every metric of a slice draws the same rows."""
    return tuple(_drawn(n, sampling))


def _drawn(n: int, sampling: Sampling) -> Iterator[npt.NDArray[np.uint16]]:
    draw = np.random.default_rng([sampling.seed, n])
    for block in blocks(sampling.resamples, n):
        yield draw.multinomial(n, np.full(n, 1 / n), size=block).astype(np.uint16)


def _swapped(mine: Table, theirs: Table, sampling: Sampling) -> Numbers:
    """Differences after random rows changed sides `[resamples]`."""
    draw = np.random.default_rng([sampling.seed, mine.n, 1])
    first, second, change = mine.parts.sum(0), theirs.parts.sum(0), theirs.parts - mine.parts
    found = []
    for block in blocks(sampling.resamples, mine.n):
        moved = draw.integers(0, 2, size=(block, mine.n)).astype(np.float64) @ change
        found += [mine.combine(first + m) - theirs.combine(second - m) for m in moved]
    return np.array(found)
