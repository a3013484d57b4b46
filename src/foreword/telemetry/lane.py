"""One sink, its queue and its thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from foreword.telemetry.records import Record

CAPACITY = 8192
"""Records that may wait for a sink; as many again may be in its hands."""
_PAUSE = 0.1
"""Seconds between two looks at a queue. A thread that is woken for every record would take turns with
the event loop thousands of times a second."""
_TURN, _BREATH = 8, 1e-4
"""After so many records a thread sleeps for so many seconds. Under load a batch takes milliseconds, in which
the event loop would wait for Python's lock."""


class Sink(Protocol):
    """Takes records, one at a time, always on the same thread. It may block and it may raise.

    It may also have `rest()`, called after each batch and at least ten times a second: the moment to
    write out what it kept; and `close()`, called once at the end.
    """

    def take(self, record: Record) -> None: ...


@dataclass(frozen=True)
class SinkState:
    """How a sink is doing. Counts are since the process began."""

    name: str
    well: float | None
    """Unix time at which it last did what it was asked; None: not yet."""
    failures: int
    """Calls that raised."""
    dropped: int
    """Records it never saw because its queue was full."""
    queued: int
    detail: str = ""
    """Type of its last failure; never its message, which may quote anything."""


class Lane:
    """Moves records to one sink, in order, on one daemon thread."""

    def __init__(self, sink: Sink, clock: Callable[[], float], capacity: int = CAPACITY) -> None:
        self._sink, self._clock, self._capacity = sink, clock, capacity
        self._lock = threading.Lock()  # held for moments only
        self._waiting: deque[Record] = deque(maxlen=capacity)
        self._put = self._done = self._dropped = self._failures = 0
        self._well: float | None = None
        self._detail = ""
        self._closing = False
        self._wake, self._progress = threading.Event(), threading.Condition()
        self._thread = threading.Thread(
            target=self._run, name=f"telemetry-{self.name}", daemon=True
        )
        self._thread.start()

    @property
    def name(self) -> str:
        return type(self._sink).__name__

    def put(self, record: Record) -> None:
        with self._lock:
            if self._closing:
                return
            if len(self._waiting) == self._capacity:
                self._dropped += 1  # the deque lets go of its oldest
            self._waiting.append(record)
            self._put += 1

    def state(self) -> SinkState:
        with self._lock:
            queued = self._put - self._dropped - self._done
            return SinkState(
                self.name, self._well, self._failures, self._dropped, queued, self._detail
            )

    def hurry(self) -> int:
        """Take what is there at once; gives a mark to wait for."""
        with self._lock:
            mark = self._put
        self._wake.set()
        return mark

    def wait_for(self, mark: int, end: float) -> bool:
        """Whether everything up to the mark was taken, or lost, before `end` (`time.monotonic()`)."""
        with self._progress:
            return self._progress.wait_for(
                lambda: self._done + self._dropped >= mark, max(0.0, end - time.monotonic())
            )

    def begin_to_close(self) -> None:
        with self._lock:
            self._closing = True
        self._wake.set()

    def join(self, end: float) -> bool:
        self._thread.join(max(0.0, end - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wake.wait(_PAUSE)
            self._wake.clear()
            with self._lock:
                closing = self._closing
                batch, self._waiting = self._waiting, deque(maxlen=self._capacity)
            self._deliver(batch)
        self._call(getattr(self._sink, "close", None))

    def _deliver(self, batch: deque[Record]) -> None:
        done = 0
        while batch:
            record = batch.popleft()  # gone as soon as it was taken
            self._call(self._sink.take, record)
            done += 1
            with self._lock:
                self._done += 1
            if done % _TURN == 0:
                time.sleep(_BREATH)
        self._call(getattr(self._sink, "rest", None), quiet=not done)
        with self._progress:
            self._progress.notify_all()

    def _call(
        self, method: Callable[..., None] | None, *arguments: Record, quiet: bool = False
    ) -> None:
        """What a sink raises is counted and goes no further."""
        if method is None:
            return
        try:
            method(*arguments)
        except Exception as e:
            with self._lock:
                self._failures += 1
                self._detail = type(e).__name__
        else:
            if not quiet:
                with self._lock:
                    self._well = self._clock()
