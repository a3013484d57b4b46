"""The scorecard: values, intervals and differences of the variants of one run, slice by slice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from foreword.artifact import Digest
from foreword.evaluation.golden import Header
from foreword.evaluation.metrics.calibration import Calibration
from foreword.evaluation.metrics.metric import SHARE, Facts, Table
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.variant import Variant
from foreword.evaluation.scorecards.evaluation import Evaluation
from foreword.evaluation.scorecards.examples import Examples, biggest
from foreword.evaluation.scorecards.pairing import Sampling, difference, value_interval
from foreword.evaluation.scorecards.slices import ALL, Slice, slices_of
from foreword.evaluation.statistics.multiplicity import holm

FEW = 10
"""Rows below which a figure says little: its slice is shown as such."""
_MOST_EXAMPLES = 5


@dataclass(frozen=True)
class Cell:
    """A metric of one variant on one slice."""

    variant: str
    slice: Slice
    metric: str
    value: float
    low: float
    high: float
    n: int
    """Rows."""


@dataclass(frozen=True)
class Comparison:
    """A metric of one variant minus that of another, on the rows of a slice both have."""

    candidate: str
    against: str
    slice: Slice
    metric: str
    difference: float
    low: float
    high: float
    p: float
    """Two-sided, of this comparison alone."""
    p_adjusted: float
    """By Holm over the slices of this pair and metric; `all rows` is not among them and keeps its p."""
    n: int


@dataclass(frozen=True)
class Latency:
    """Seconds of a variant's answers."""

    variant: str
    p50: float
    p95: float
    n: int


@dataclass(frozen=True)
class Scorecard:
    """Everything a reader or a later comparison needs; `stored.py` writes and reads it."""

    golden: Header
    set_digest: Digest
    rows: int
    variants: tuple[Variant, ...]
    decoding: Decoding
    engine: str
    created: datetime
    sampling: Sampling
    metrics: tuple[Facts, ...]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    latencies: tuple[Latency, ...]
    examples: tuple[Examples, ...]
    calibrations: tuple[Calibration, ...] = ()

    def cell(self, variant: str, metric: str, slice: Slice = ALL) -> Cell | None:
        wanted = (variant, metric, slice)
        return next((c for c in self.cells if (c.variant, c.metric, c.slice) == wanted), None)

    def comparison(
        self, candidate: str, against: str, metric: str, slice: Slice = ALL
    ) -> Comparison | None:
        wanted = (candidate, against, metric, slice)
        return next(
            (c for c in self.comparisons if (c.candidate, c.against, c.metric, c.slice) == wanted),
            None,
        )

    @property
    def slices(self) -> tuple[Slice, ...]:
        return tuple(dict.fromkeys(cell.slice for cell in self.cells))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        return tuple(dict.fromkeys((c.candidate, c.against) for c in self.comparisons))


def build(
    evaluation: Evaluation,
    now: datetime,
    *,
    sampling: Sampling | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    calibrations: Sequence[Calibration] = (),
) -> Scorecard:
    """Measure every slice. Without `pairs`, every variant is compared with all before it."""
    how = sampling or Sampling()
    replay = evaluation.replay
    names = [variant.name for variant in replay.variants]
    chosen = tuple(pairs) if pairs is not None else tuple(_backwards(names))
    slices = slices_of(replay.golden.rows)
    return Scorecard(
        golden=replay.golden.header,
        set_digest=replay.golden.digest,
        rows=len(replay.golden.rows),
        variants=replay.variants,
        decoding=replay.decoding,
        engine=replay.engine,
        created=now,
        sampling=how,
        metrics=evaluation.facts,
        cells=tuple(_cells(evaluation, slices, how)),
        comparisons=tuple(
            each for pair in chosen for each in _comparisons(evaluation, *pair, slices, how)
        ),
        latencies=tuple(_latencies(evaluation)),
        examples=tuple(
            found for pair in chosen if (found := biggest(evaluation, *pair, _MOST_EXAMPLES))
        ),
        calibrations=tuple(calibrations),
    )


def _backwards(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The last with the one before it first: that is what a release is about."""
    for later in range(len(names) - 1, 0, -1):
        for earlier in range(later - 1, -1, -1):
            yield names[later], names[earlier]


def _cells(
    evaluation: Evaluation, slices: Mapping[Slice, Sequence[str]], sampling: Sampling
) -> Iterator[Cell]:
    for variant, measured in evaluation.measured.items():
        for each in measured.values():
            for part, table in _parts(each.table, slices):
                if table.n:
                    share = each.facts.unit == SHARE
                    found = value_interval(table, sampling, share=share)
                    yield Cell(
                        variant, part, each.facts.name, table.value, found.low, found.high, table.n
                    )


def _comparisons(
    evaluation: Evaluation,
    candidate: str,
    against: str,
    slices: Mapping[Slice, Sequence[str]],
    sampling: Sampling,
) -> Iterator[Comparison]:
    found: dict[str, list[Comparison]] = defaultdict(list)
    for name, mine in evaluation.measured[candidate].items():
        theirs = evaluation.measured[against].get(name)
        if theirs is None:
            continue
        for part, table in _parts(mine.table, slices):
            if set(table.ids) & set(theirs.table.ids):
                share = mine.facts.unit == SHARE
                d = difference(table, theirs.table, sampling, share=share)
                found[name].append(
                    Comparison(
                        candidate, against, part, name, d.estimate, d.low, d.high, d.p, d.p, d.n
                    )
                )
    for group in found.values():
        yield from _adjusted(group)


def _parts(table: Table, slices: Mapping[Slice, Sequence[str]]) -> Iterator[tuple[Slice, Table]]:
    """The table of every slice; what was measured on other texts than the rows has `all rows` only."""
    for part, ids in slices.items():
        yield part, table if part == ALL else table.only(ids)


def _adjusted(group: Sequence[Comparison]) -> Iterator[Comparison]:
    parts = [each for each in group if each.slice != ALL]
    yield from (each for each in group if each.slice == ALL)
    for each, p in zip(parts, holm([each.p for each in parts]), strict=True):
        yield replace(each, p_adjusted=float(p))


def _latencies(evaluation: Evaluation) -> Iterator[Latency]:
    for variant, measured in evaluation.measured.items():
        if "latency" in measured:
            seconds = measured["latency"].table.row_values()
            p50, p95 = np.quantile(seconds, [0.5, 0.95])
            yield Latency(variant, float(p50), float(p95), len(seconds))
