"""A sink may raise, hang or be slow: `emit` does not notice, and neither do the other sinks."""

from __future__ import annotations

import sys
import threading
import time

from foreword.telemetry.hub import Telemetry
from foreword.telemetry.records import PrefixEvicted, Record
from tests.telemetry.made import NOW, Kept, finished

RECORD = PrefixEvicted(NOW, "sha256:1", "room")


class Raises:
    def take(self, record: Record) -> None:
        raise ValueError("a message that may quote a prompt")


class Hangs:
    """Until it is let go."""

    def __init__(self) -> None:
        self.let_go, self.taken = threading.Event(), 0

    def take(self, record: Record) -> None:
        self.let_go.wait()
        self.taken += 1


def numbered(count: int) -> list[PrefixEvicted]:
    return [PrefixEvicted(float(i), str(i), "room") for i in range(count)]


def test_every_sink_gets_every_record_in_order() -> None:
    first, second = Kept(), Kept()
    telemetry = Telemetry([first, second])
    records = numbered(1000)
    for record in records:
        telemetry.emit(record)
    assert telemetry.flush()
    assert first.records == second.records == records
    assert telemetry.close()


def test_records_of_many_threads_all_arrive() -> None:
    kept = Kept()
    telemetry = Telemetry([kept], capacity=100_000)
    threads = [
        threading.Thread(target=lambda: [telemetry.emit(RECORD) for _ in range(2000)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert telemetry.close()
    assert len(kept.records) == 16_000


def test_a_sink_that_raises_is_counted_and_costs_the_others_nothing() -> None:
    kept = Kept()
    telemetry = Telemetry([Raises(), kept], clock=lambda: NOW)
    for _ in range(10):
        telemetry.emit(RECORD)
    assert telemetry.close()
    bad, good = telemetry.states()
    assert (bad.name, bad.failures, bad.dropped, bad.well) == ("Raises", 10, 0, None)
    assert bad.detail == "ValueError"  # its type, and nothing of what it says
    assert (good.failures, good.well, len(kept.records)) == (0, NOW, 10)


def test_a_sink_that_hangs_loses_its_oldest_records_and_holds_up_nobody() -> None:
    hangs, kept = Hangs(), Kept()
    telemetry = Telemetry([hangs, kept], capacity=100)
    telemetry.emit(RECORD)
    while telemetry.states()[1].well is None:  # the first record is in both sinks' hands
        time.sleep(0.01)
    for record in numbered(500):
        telemetry.emit(record)
        time.sleep(0.0005 if record.time % 50 == 0 else 0)
    assert not telemetry.flush(timeout=0.5)
    stuck = telemetry.states()[0]
    assert stuck.dropped == 400
    assert stuck.queued == 101
    assert kept.records[-1] == numbered(500)[-1]
    hangs.let_go.set()
    assert telemetry.close()
    assert hangs.taken == 101


def test_close_does_not_wait_longer_than_it_was_told() -> None:
    hangs = Hangs()
    telemetry = Telemetry([hangs])
    telemetry.emit(RECORD)
    began = time.monotonic()
    assert not telemetry.close(timeout=0.3)
    assert time.monotonic() - began < 2
    hangs.let_go.set()


def test_what_comes_after_close_is_lost_without_an_error() -> None:
    kept = Kept()
    telemetry = Telemetry([kept])
    telemetry.close()
    telemetry.emit(RECORD)
    assert telemetry.flush()
    assert kept.records == []


def test_rest_is_called_without_traffic_and_close_once() -> None:
    class Calls(Kept):
        rests = closes = 0

        def rest(self) -> None:
            self.rests += 1

        def close(self) -> None:
            self.closes += 1

    sink = Calls()
    telemetry = Telemetry([sink])
    time.sleep(0.5)
    assert sink.rests >= 2
    assert telemetry.states()[0].well is None  # having nothing to do proves nothing
    telemetry.close()
    telemetry.close()
    assert sink.closes == 1


def test_a_sink_whose_rest_fails_says_so() -> None:
    class Full(Kept):
        def rest(self) -> None:
            raise OSError(28, "full")

    telemetry = Telemetry([Full()])
    telemetry.emit(RECORD)
    assert telemetry.close()
    assert telemetry.states()[0].failures >= 1
    assert telemetry.states()[0].detail == "OSError"


def test_a_long_batch_lets_other_threads_have_their_turn() -> None:
    class Busy:
        def take(self, record: Record) -> None:
            end = time.perf_counter() + 0.002
            while time.perf_counter() < end:
                pass

    count, gaps = 64, list[float]()
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5.0)  # nobody is made to let go of Python's lock
    try:
        telemetry = Telemetry([Busy()])
        for _ in range(count):
            telemetry.emit(finished())
        while telemetry.states()[0].queued:
            began = time.perf_counter()
            time.sleep(0.001)
            gaps.append(time.perf_counter() - began)
    finally:
        sys.setswitchinterval(usual)
    telemetry.close()
    assert max(gaps) < count * 0.002 / 2


def test_emit_is_cheap_even_if_every_sink_is_stuck() -> None:
    telemetry = Telemetry([Hangs() for _ in range(4)])
    record = finished()
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(5000):
            telemetry.emit(record)
        best = min(best, (time.perf_counter() - began) / 5000)
    assert best < 20e-6
