"""One reading of `/metrics`, and what follows from two of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

from foreword.errors import ServingError

Labels = tuple[tuple[str, str], ...]
Buckets = tuple[tuple[float, float], ...]
"""Upper end and how many lie at or below it, rising."""


@dataclass(frozen=True)
class Page:
    series: Mapping[str, Mapping[Labels, float]]
    """Values by the name of the sample, then by labels in order."""
    when: float = field(default_factory=time.monotonic)

    def sum(self, name: str, **labels: str) -> float | None:
        """Of all series with these labels among theirs; None if there is none."""
        found = [value for each, value in self._matching(name, labels)]
        return sum(found) if found else None

    def values(self, name: str, label: str) -> set[str]:
        """All values of a label."""
        return {dict(each)[label] for each in self.series.get(name, {}) if label in dict(each)}

    def buckets(self, name: str, **labels: str) -> Buckets:
        """A histogram, added up over all series with these labels."""
        ends: dict[float, float] = {}
        for each, value in self._matching(f"{name}_bucket", labels):
            end = float(dict(each)["le"])
            ends[end] = ends.get(end, 0.0) + value
        return tuple(sorted(ends.items()))

    def _matching(self, name: str, labels: Mapping[str, str]) -> list[tuple[Labels, float]]:
        wanted = set(labels.items())
        return [item for item in self.series.get(name, {}).items() if wanted <= set(item[0])]


NOTHING = Page({}, 0.0)
"""What a server said before it began."""


def read_page(text: str) -> Page:
    """
    Raises:
        ServingError: it is no page of metrics, or not one of Foreword's (`top.page`).
    """
    series: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                series.setdefault(sample.name, {})[labels] = float(sample.value)
    except (ValueError, KeyError, IndexError) as e:
        raise _other_page() from e
    if "prefix_responses_total" not in series:
        raise _other_page()
    return Page(series)


def grown(before: Page, now: Page, name: str, **labels: str) -> float:
    """By how much counters grew; one that is smaller than before began anew."""
    later, earlier = now.sum(name, **labels) or 0.0, before.sum(name, **labels) or 0.0
    return later - earlier if later >= earlier else later


def between(before: Buckets, now: Buckets) -> Buckets:
    """The part of a histogram that came in between."""
    earlier = dict(before)
    counts = tuple((end, count - earlier.get(end, 0.0)) for end, count in now)
    return now if any(count < 0 for _, count in counts) else counts


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """As Prometheus's `histogram_quantile`: values lie evenly in their bucket. None: there are none.

    What lies above the last finite end counts as that end.
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank = share * buckets[-1][1]
    for (low, below), (high, count) in pairwise([(0.0, 0.0), *buckets]):
        if count >= rank and count > below:
            return (
                low
                if high == float("inf")
                else low + (high - low) * (rank - below) / (count - below)
            )
    return None


def _other_page() -> ServingError:
    return ServingError(
        "what answers there is not the operator's port of a Foreword server; give the address of "
        "`foreword serve --admin-port` with --url",
        code="top.page",
    )
