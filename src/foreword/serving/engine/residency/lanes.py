"""Lanes: work that may take long, on threads, so that the engine's thread never waits for it.

A job that hangs is given up at its time limit: its place is free again, and whatever it still brings is
dropped. A thread cannot be stopped, so how many may hang is bounded as well.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Ticket = TypeVar("Ticket")
Result = TypeVar("Result")

_MOST_LOST = 32


@dataclass(frozen=True)
class Outcome(Generic[Ticket, Result]):
    """How a job ended: with a result or with an error."""

    ticket: Ticket
    result: Result | None
    error: BaseException | None


@dataclass(frozen=True, eq=False)
class _Job(Generic[Ticket, Result]):
    ticket: Ticket
    work: Callable[[], Result]


_Ended = tuple[_Job[Ticket, Result], Result | None, BaseException | None]


class Lane(Generic[Ticket, Result]):
    """At most `width` jobs at once, first come first served.

    All methods belong to one thread; `woken` is called by the threads of the jobs.
    """

    def __init__(self, name: str, width: int, limit: float, woken: Callable[[], None]) -> None:
        self._name, self._width, self._limit, self._woken = name, width, limit, woken
        self._waiting: deque[_Job[Ticket, Result]] = deque()
        self._running: dict[_Job[Ticket, Result], float] = {}
        self._lost: set[_Job[Ticket, Result]] = set()
        self._inbox: SimpleQueue[_Job[Ticket, Result] | None] = SimpleQueue()
        self._ended: SimpleQueue[_Ended[Ticket, Result]] = SimpleQueue()
        self._threads = 0

    @property
    def backlog(self) -> int:
        """Jobs that have not begun."""
        return len(self._waiting)

    @property
    def lost(self) -> int:
        """Jobs that were given up and still hang."""
        return len(self._lost)

    def submit(self, ticket: Ticket, work: Callable[[], Result]) -> None:
        self._waiting.append(_Job(ticket, work))

    def start(self, now: float, most: int | None = None) -> None:
        """Begin waiting jobs while there are free places, and fewer than `most` run."""
        width = self._width if most is None else min(self._width, most)
        while self._waiting and len(self._running) < width and not self._stuck():
            job = self._waiting.popleft()
            self._running[job] = now
            try:
                if self._threads < len(self._running) + len(self._lost):
                    self._hire()
            except (RuntimeError, MemoryError) as e:  # no thread left: the job's error, not ours
                self._ended.put((job, None, e))
            else:
                self._inbox.put(job)

    def collect(self, now: float) -> Iterator[Outcome[Ticket, Result]]:
        """What has ended since the last time, and what took too long. Never waits."""
        while True:
            try:
                job, result, error = self._ended.get_nowait()
            except Empty:
                break
            if self._running.pop(job, None) is None:
                self._lost.discard(job)
                if self._threads > self._width + len(self._lost):
                    self._dismiss(1)  # another has taken its place
            else:
                yield Outcome(job.ticket, result, error)
        for job in [job for job, began in self._running.items() if now - began >= self._limit]:
            del self._running[job]
            self._lost.add(job)
            yield Outcome(job.ticket, None, TimeoutError(f"it took over {self._limit:g} s"))
        if self._stuck():  # nothing will begin until one comes back, which may be never
            while self._waiting:
                reason = f"{len(self._lost)} earlier ones hang"
                yield Outcome(self._waiting.popleft().ticket, None, TimeoutError(reason))

    def drop(self) -> Iterator[Ticket]:
        """Give up what has not begun."""
        while self._waiting:
            yield self._waiting.popleft().ticket

    def close(self) -> None:
        """Forget what has not begun; what runs ends unheard, and with it its thread."""
        self._waiting.clear()
        self._lost.update(self._running)
        self._running.clear()
        self._dismiss(self._threads)

    def _stuck(self) -> bool:
        return len(self._lost) >= _MOST_LOST

    def _hire(self) -> None:
        # A thread is kept: starting one waits until it runs, which on a busy machine takes long.
        threading.Thread(
            target=_work,
            args=(self._inbox, self._ended, self._woken),
            name=f"foreword-{self._name}",
            daemon=True,
        ).start()
        self._threads += 1

    def _dismiss(self, count: int) -> None:
        for _ in range(min(count, self._threads)):
            self._inbox.put(None)
            self._threads -= 1


def _work(
    inbox: SimpleQueue[_Job[Ticket, Result] | None],
    ended: SimpleQueue[_Ended[Ticket, Result]],
    woken: Callable[[], None],
) -> None:
    """A thread's life: one job after another until it is dismissed."""
    while (job := inbox.get()) is not None:
        try:
            result, error = job.work(), None
        except BaseException as e:  # the lane's owner judges it; here nobody would hear of it
            result, error = None, e
        ended.put((job, result, error))
        # Between two jobs a thread holds nothing: what it brought may be megabytes.
        del job, result, error
        woken()
