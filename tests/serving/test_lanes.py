"""Threads that bring something, fail, hang, or come back when nobody waits for them any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from foreword.serving.engine.residency import lanes
from foreword.serving.engine.residency.lanes import Lane, Outcome

Words = Lane[str, str]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs, hangs until this opens."""
    event = threading.Event()
    yield event
    event.set()


def lane(width: int = 2, limit: float = 10.0) -> tuple[Words, threading.Semaphore]:
    woken = threading.Semaphore(0)
    return Lane("test", width, limit, woken.release), woken


def some(lane: Words, woken: threading.Semaphore, now: float) -> list[Outcome[str, str]]:
    assert woken.acquire(timeout=5)
    return list(lane.collect(now))


def test_a_result_and_an_error_come_back_with_their_ticket() -> None:
    words, woken = lane(width=1)
    words.submit("good", lambda: "result")
    words.submit("bad", lambda: str(1 // 0))
    words.start(0.0)
    assert some(words, woken, 0.0) == [Outcome("good", "result", None)]
    words.start(0.0)
    [outcome] = some(words, woken, 0.0)
    assert outcome.ticket == "bad"
    assert isinstance(outcome.error, ZeroDivisionError)


def test_no_more_run_at_once_than_there_are_places(gate: threading.Event) -> None:
    words, woken = lane(width=2)
    begun = threading.Semaphore(0)

    def work() -> str:
        begun.release()
        gate.wait()
        return ""

    for number in range(5):
        words.submit(str(number), work)
    words.start(0.0)
    assert begun.acquire(timeout=5)
    assert begun.acquire(timeout=5)
    assert not begun.acquire(timeout=0.05)
    assert words.backlog == 3
    gate.set()
    seen = 0
    while seen < 5:
        seen += len(some(words, woken, 0.0))
        words.start(0.0)


def test_what_hangs_is_given_up_and_its_late_result_dropped(gate: threading.Event) -> None:
    words, woken = lane(width=1, limit=1.0)
    words.submit("hangs", lambda: str(gate.wait()))
    words.start(0.0)
    assert list(words.collect(0.9)) == []
    [outcome] = words.collect(1.0)
    assert isinstance(outcome.error, TimeoutError)
    words.submit("next", lambda: "fine")
    words.start(1.0)
    assert some(words, woken, 1.0) == [Outcome("next", "fine", None)]
    assert words.lost == 1
    gate.set()
    assert some(words, woken, 1.0) == []
    assert words.lost == 0


def test_when_too_many_hang_the_rest_is_told_at_once(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_MOST_LOST", 3)
    words, woken = lane(width=1, limit=1.0)
    for number in range(4):
        words.submit(f"hangs {number}", lambda: str(gate.wait()))
    for now in range(3):
        words.start(now)
        told = [outcome.ticket for outcome in words.collect(now + 1.0)]
    assert told == ["hangs 2", "hangs 3"], "the last is told without having begun"
    gate.set()
    for _ in range(3):
        assert woken.acquire(timeout=5)
    assert list(words.collect(9.0)) == []
    words.submit("next", lambda: "fine")
    words.start(9.0)
    assert some(words, woken, 9.0) == [Outcome("next", "fine", None)]


def test_a_system_without_threads_left_fails_the_job_and_not_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    words, _ = lane()
    words.submit("job", lambda: "result")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    words.start(0.0)
    [outcome] = words.collect(0.0)
    assert isinstance(outcome.error, RuntimeError)


def test_as_many_threads_as_places_however_many_jobs_and_however_many_hang(
    gate: threading.Event,
) -> None:
    def threads() -> int:
        return sum(thread.name == "foreword-counted" for thread in threading.enumerate())

    woken = threading.Semaphore(0)
    words: Words = Lane("counted", 2, 1.0, woken.release)
    for number in range(20):
        words.submit(str(number), lambda: "")
        words.start(0.0)
        some(words, woken, 0.0)
    assert threads() <= 2
    for number in range(2):
        words.submit(f"hangs {number}", lambda: str(gate.wait()))
    words.start(0.0)
    assert len(list(words.collect(1.0))) == 2
    for number in range(4):
        words.submit(str(number), lambda: "")
        words.start(1.0)
        some(words, woken, 1.0)
    gate.set()
    while words.lost:
        some(words, woken, 1.0)
    deadline = time.monotonic() + 5
    while threads() > 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert 1 <= threads() <= 2
    words.close()
    while threads() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert threads() == 0


def test_after_it_is_closed_nothing_is_heard(gate: threading.Event) -> None:
    words, woken = lane(width=1)
    words.submit("runs", lambda: str(gate.wait()))
    words.submit("waits", lambda: "never")
    words.start(0.0)
    words.close()
    gate.set()
    assert woken.acquire(timeout=5)
    time.sleep(0.01)
    words.start(99.0)
    assert list(words.collect(99.0)) == []
