"""From the core to whoever listens: `emit` costs a microsecond and cannot fail.

    emit ─┬─▶ lane: bounded queue ─ thread ─▶ sink
          ├─▶ lane: bounded queue ─ thread ─▶ sink
          └─▶ ...

Every sink has a lane of its own, so one that raises, hangs or is slow costs the others nothing. A full
queue loses its oldest record, and counts it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from foreword.telemetry.lane import CAPACITY, Lane, Sink, SinkState
from foreword.telemetry.records import Record

__all__ = ["Sink", "SinkState", "Telemetry"]


class Telemetry:
    """Hands each record to every sink, in the order in which one thread emitted them.

    `clock` gives Unix time and is only used to say when a sink was last well.
    """

    def __init__(
        self,
        sinks: Iterable[Sink] = (),
        clock: Callable[[], float] = time.time,
        *,
        capacity: int = CAPACITY,
    ) -> None:
        self._lanes = tuple(Lane(sink, clock, capacity) for sink in sinks)

    def emit(self, record: Record) -> None:
        """Never raises and never waits for a sink. May be called from any thread."""
        for lane in self._lanes:
            lane.put(record)

    def states(self) -> tuple[SinkState, ...]:
        """How each sink is doing, for readiness and for the metrics about the metrics."""
        return tuple(lane.state() for lane in self._lanes)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until all that was emitted so far is taken; False if that took too long."""
        end = time.monotonic() + timeout
        marks = [lane.hurry() for lane in self._lanes]
        return all(lane.wait_for(mark, end) for lane, mark in zip(self._lanes, marks, strict=True))

    def close(self, timeout: float = 5.0) -> bool:
        """Flush, then close every sink; False if some did not finish. Later records are lost.

        What hangs is left behind on its daemon thread, which does not keep the process alive.
        """
        end = time.monotonic() + timeout
        for lane in self._lanes:
            lane.begin_to_close()
        return all(lane.join(end) for lane in self._lanes)
