"""Series that loads, evictions and releases make."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric

from foreword.telemetry.metrics import closed
from foreword.telemetry.metrics.families import Counts, Spread
from foreword.telemetry.records import PrefixEvicted, PrefixLoaded, ReleaseSeen

_COLD = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
_SEEN = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0)


class Prefixes:
    """Series that loads, evictions and releases make."""

    def __init__(self) -> None:
        self._loads = Counts(
            "prefix_load_attempts",
            "Attempts to make a prefix resident.",
            {"result": closed.RESULTS, "source": closed.SOURCES},
        )
        self._cold = Spread(
            "prefix_cold_start_seconds", "Time to make a prefix resident.", _COLD, ["phase"]
        )
        self._compat = Counts(
            "prefix_compat_errors",
            "Prefixes that do not belong to this base.",
            {"reason": closed.COMPATIBILITY},
        )
        self._fetches = Counts(
            "prefix_fetch_failures", "Prefixes not fetched.", {"reason": closed.FETCH}
        )
        self._evictions = Counts(
            "prefix_evictions",
            "Prefixes that left the device's memory.",
            {"reason": closed.EVICTIONS},
        )
        self._changes = Counts("prefix_release_changes", "Releases that took effect here.")
        self._delay = Spread(
            "prefix_release_delay_seconds", "From a journal entry to its effect here.", _SEEN
        )

    def take(self, record: PrefixLoaded | PrefixEvicted | ReleaseSeen) -> None:
        if isinstance(record, PrefixLoaded):
            self._loaded(record)
        elif isinstance(record, PrefixEvicted):
            self._evictions.add(closed.one_of(closed.EVICTIONS, record.reason))
        else:
            self._changes.add()
            self._delay.observe(seconds=record.delay)

    def _loaded(self, record: PrefixLoaded) -> None:
        result = closed.short(closed.LOAD_FAILURES, record.code) if record.code else "ok"
        self._loads.add(result, closed.one_of(closed.SOURCES, record.source))
        if result in closed.COMPATIBILITY:
            self._compat.add(result)
        if result in closed.FETCH:
            self._fetches.add(result)
        if result == "ok":
            phases = {k: v for k, v in record.phases.items() if k in closed.PHASES}
            for phase, seconds in phases.items():
                self._cold.observe(phase, seconds=seconds)
            self._cold.observe("total", seconds=sum(phases.values()))

    def families(self) -> Iterator[Metric]:
        for counts in (self._loads, self._compat, self._fetches, self._evictions, self._changes):
            yield counts.family()
        yield self._cold.family()
        yield self._delay.family()
