"""What `/metrics` says. Names and meaning of every series are in docs/telemetry.md.

At most 2,000 series whatever clients send: labels come from closed sets (metrics/closed.py), and only the 50
most used prefixes have series of their own (metrics/ranking.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily

from foreword.errors import ConfigError
from foreword.telemetry.lane import SinkState
from foreword.telemetry.metrics import closed
from foreword.telemetry.metrics.families import Counts
from foreword.telemetry.metrics.gauges import gateway_families, gauge_families
from foreword.telemetry.metrics.prefixes import Prefixes
from foreword.telemetry.metrics.requests import Requests
from foreword.telemetry.records import (
    Gauges,
    Record,
    RequestFinished,
    RequestRefused,
)

MOST_PREFIXES = 50


class PrometheusSink:
    """Keeps the numbers, and writes the page when it is asked.

    Args:
        gauges: gives what holds now; called at each scrape. If it raises, the page lacks these.
        top: how many prefixes have series of their own.
        inference_gateway: also the three gauges by which the Kubernetes inference gateway picks a
            replica, under vLLM's names. The labels of one change with traffic, so they are off.
        clock: Unix time.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(
        self,
        gauges: Callable[[], Gauges] | None = None,
        *,
        top: int = MOST_PREFIXES,
        inference_gateway: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not 1 <= top <= MOST_PREFIXES:
            raise ConfigError(
                f"1 to {MOST_PREFIXES} prefixes can have series of their own, got {top}",
                code="config.value",
            )
        self._gauges, self._clock, self._gateway = gauges, clock, inference_gateway
        self._states: Callable[[], Iterable[SinkState]] = tuple
        self._lock = threading.Lock()
        self._requests, self._prefixes = Requests(top), Prefixes()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def watch(self, states: Callable[[], Iterable[SinkState]]) -> None:
        """Also tell how the sinks are doing: `Telemetry.states`."""
        self._states = states

    def take(self, record: Record) -> None:
        with self._lock:
            if isinstance(record, RequestFinished):
                self._requests.finished(record, self._clock())
            elif isinstance(record, RequestRefused):
                self._requests.refused(record)
            else:
                self._prefixes.take(record)

    def page(self) -> bytes:
        """The answer to a scrape, of `content_type`."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        now = self._clock()
        with self._lock:
            families = [*self._requests.families(now), *self._prefixes.families()]
        yield from families
        yield from self._now(now)
        yield from _about_sinks(self._states())

    def _now(self, now: float) -> Iterator[Metric]:
        if self._gauges is None:
            return
        up = GaugeMetricFamily("prefix_gauges_up", "0: what holds now could not be asked for.")
        try:
            gauges = self._gauges()
        except Exception:  # a broken gauge must not hide the counters
            up.add_metric([], 0)
        else:
            up.add_metric([], 1)
            yield from gauge_families(gauges)
            yield from gateway_families(gauges, now) if self._gateway else ()
        yield up


def _about_sinks(states: Iterable[SinkState]) -> Iterator[Metric]:
    dropped = Counts("prefix_telemetry_dropped", "Records a sink never saw.", {"sink": closed.ANY})
    failures = Counts(
        "prefix_telemetry_failures", "Calls of a sink that raised.", {"sink": closed.ANY}
    )
    for state in states:
        dropped.add(state.name, count=state.dropped)
        failures.add(state.name, count=state.failures)
    yield dropped.family()
    yield failures.family()
