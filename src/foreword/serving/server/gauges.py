"""What holds now, as the telemetry asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from foreword.serving.contract import Capacity
from foreword.telemetry.records import Gauges


class Stats(Protocol):
    """What a store of prefixes counts; `StoreStats` is one."""

    @property
    def resident(self) -> int: ...
    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    @property
    def host_bytes(self) -> int: ...
    @property
    def disk_bytes(self) -> int: ...


def capacity_gauges(capacity: Capacity) -> Gauges:
    return Gauges(
        running=capacity.running,
        waiting=capacity.waiting,
        kv_bytes=capacity.kv_bytes,
        kv_budget=capacity.kv_budget,
        prefix_bytes=capacity.prefix_bytes,
        prefix_budget=capacity.prefix_budget,
    )


def residency(stats: Callable[[], Stats]) -> Callable[[Gauges], Gauges]:
    """Adds what only a store in this process knows."""

    def add(gauges: Gauges) -> Gauges:
        now = stats()
        return replace(
            gauges, resident=now.resident, hits=now.hits, misses=now.misses,
            host_bytes=now.host_bytes, disk_bytes=now.disk_bytes,
        )  # fmt: skip

    return add
