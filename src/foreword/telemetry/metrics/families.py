"""Counters and histograms as plain numbers, for a registry that can forget a series.

prometheus_client's own metrics add a `_created` series to each, and are locked one by one; here one lock
covers a whole record, and a page is one moment. Its families and its text format are used as they are.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

Labels = tuple[str, ...]
_LARGEST = 1e6


class Counts:
    """A counter per set of label values. `labels`: for each its possible values; empty: any."""

    def __init__(
        self, name: str, help: str, labels: Mapping[str, frozenset[str]] = MappingProxyType({})
    ) -> None:
        self.name, self.help, self.labels = name, help, tuple(labels)
        # From the start at zero: of a series that begins with 1, `increase` sees nothing.
        known = itertools.product(*map(sorted, labels.values()))
        self._values: dict[Labels, float] = dict.fromkeys(known, 0.0)

    def add(self, *values: str, count: float = 1.0) -> None:
        """A counter never goes back."""
        self._values[values] = self._values.get(values, 0.0) + max(count, 0.0)

    def forget(self, first: str) -> None:
        """Drop the series whose first label has that value."""
        self._values = {k: v for k, v in self._values.items() if k[0] != first}

    def family(self) -> CounterMetricFamily:
        family = CounterMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return family


class Spread:
    """A histogram per set of label values; `bounds` are upper ends in seconds, rising."""

    def __init__(
        self, name: str, help: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> None:
        self.name, self.help, self.labels = name, help, tuple(labels)
        self._bounds = tuple(bounds)
        self._names = (*map(str, self._bounds), "+Inf")
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, *values: str, seconds: float) -> None:
        """What is no duration is left out: one NaN would spoil the sum for ever."""
        if not math.isfinite(seconds) or not 0 <= seconds <= _LARGEST:
            return
        counts = self._counts.get(values)
        if counts is None:
            counts = self._counts[values] = [0] * len(self._names)
        counts[bisect.bisect_left(self._bounds, seconds)] += 1
        self._sums[values] = self._sums.get(values, 0.0) + seconds

    def forget(self, first: str) -> None:
        """Drop the series whose first label has that value."""
        for labels in [labels for labels in self._counts if labels[0] == first]:
            del self._counts[labels], self._sums[labels]

    def family(self) -> HistogramMetricFamily:
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for labels, counts in self._counts.items():
            buckets = list(zip(self._names, itertools.accumulate(counts), strict=True))
            family.add_metric(labels, buckets, self._sums[labels])
        return family
