"""When nobody answers where prefixes come from: what is here goes on, what is not is refused at once."""

from __future__ import annotations

import threading

import pytest

from foreword.artifact import Digest
from foreword.errors import NotFound, PrefixUnavailable, StorageError
from foreword.prefix.base_model import BaseModel
from foreword.serving.engine.residency.breaker import Failure
from foreword.serving.engine.residency.circuit import (
    Circuit,
    CircuitRules,
    after_departure,
    after_fetch,
)
from foreword.serving.engine.residency.store import LoadLimits, PrefixStore
from tests.serving.prefix_samples import (
    Clock,
    Source,
    artifact,
    load,
    refused,
    step,
    store,
    until,
    use,
)

RULES = CircuitRules(tries=3, pause=1.0)
AWAY = Failure.of(StorageError("no answer"))
DIGESTS = [Digest.of(bytes([number])) for number in range(4)]


def row(*failures: tuple[int, Failure | None], now: float = 0.0) -> Circuit:
    circuit = Circuit()
    for number, failure in failures:
        circuit = after_fetch(circuit, DIGESTS[number], failure, now, RULES)
    return circuit


def test_it_opens_when_several_prefixes_find_nobody_there() -> None:
    assert row((0, AWAY), (1, AWAY), (2, AWAY)).is_open
    assert row((0, AWAY), (1, Failure.of(TimeoutError())), (2, AWAY)).is_open
    assert not row((0, AWAY), (1, AWAY)).is_open
    assert not row(*[(0, AWAY)] * 9).is_open, "one object that cannot be had says nothing of others"
    assert not row((0, AWAY), (1, AWAY), (3, None), (2, AWAY)).is_open, "somebody was there"
    damaged = Failure.of(NotFound("it is not in the store"))
    assert not row((0, damaged), (1, damaged), (2, damaged)).is_open


def test_one_fetch_goes_through_each_pause_until_one_succeeds() -> None:
    circuit = row((0, AWAY), (1, AWAY), (2, AWAY), now=10.0)
    assert not circuit.lets_through(10.9)
    assert circuit.refusal("abc", 10.4).retry_after == pytest.approx(0.6)
    assert circuit.lets_through(11.0)
    circuit = after_departure(circuit, 11.0, RULES)
    assert not circuit.lets_through(11.9)
    circuit = after_fetch(circuit, DIGESTS[3], AWAY, 11.5, RULES)
    assert circuit.lets_through(12.0)
    assert after_fetch(circuit, DIGESTS[3], None, 12.1, RULES) == Circuit()


def cold(base: BaseModel, source: Source, count: int) -> list[Digest]:
    return source.add(*(artifact(base, 100 + number) for number in range(count)))


def want(kept: PrefixStore, digests: list[Digest], clock: Clock) -> list[PrefixUnavailable]:
    """What each of these is refused with now."""
    found = []
    for digest in digests:
        try:
            kept.want(digest, clock.now)
        except PrefixUnavailable as error:
            found.append(error)
    return found


def test_a_store_that_hangs_is_found_out_once_for_all(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock, gate: threading.Event
) -> None:
    kept = store(base, source, room=40, limits=LoadLimits(fetch=5.0))
    use(kept, names[0], clock)
    many = cold(base, source, 20)
    source.before = lambda digest: (gate.wait(30), None)[1]
    begun = len(source.asked)
    assert want(kept, many, clock) == []
    step(kept, clock)
    until(kept, clock, lambda: len(source.asked) - begun == 8)
    clock.pass_by(5.0)
    step(kept, clock)
    refusals = want(kept, many, clock)
    assert len(refusals) == 20, "also those whose fetch had not begun"
    assert all(error.retry_after is not None and error.retry_after <= 2.0 for error in refusals)
    assert len(source.asked) - begun == 8
    assert use(kept, names[0], clock).digest == names[0]
    others = cold(base, source, 22)[20:]
    assert [error.code for error in want(kept, others, clock)] == ["prefix.fetch_timeout"] * 2
    gate.set()
    source.before = lambda digest: None
    clock.pass_by(2.0)
    for digest in (*others, *many):
        assert load(kept, digest, clock).digest == digest


def test_nothing_begins_behind_fetches_that_are_about_to_tell(
    base: BaseModel, source: Source, clock: Clock, gate: threading.Event
) -> None:
    """Two find nobody there a moment before the others: what took their places would wait as long again."""
    kept = store(base, source, room=40, limits=LoadLimits(fetch=5.0))
    many = cold(base, source, 20)
    source.before = lambda digest: (gate.wait(30), None)[1]
    assert want(kept, many[:2], clock) == []
    clock.pass_by(1.0)
    assert want(kept, many[2:], clock) == []
    until(kept, clock, lambda: len(source.asked) == 8)
    clock.pass_by(4.0)
    step(kept, clock)
    assert len(want(kept, many, clock)) == 2, "those that began first"
    clock.pass_by(1.0)
    step(kept, clock)
    assert len(want(kept, many, clock)) == 20
    assert len(source.asked) == 8
    gate.set()


def test_one_that_cannot_be_had_keeps_the_others_waiting_for_nobody(
    base: BaseModel, source: Source, clock: Clock
) -> None:
    hopeless, *many = cold(base, source, 12)

    def before(digest: Digest) -> None:
        if digest == hopeless:
            raise StorageError("connection reset")

    source.before = before
    kept = store(base, source, room=40)
    refused(kept, hopeless, clock)
    assert want(kept, many, clock) == []
    for digest in many:
        assert load(kept, digest, clock).digest == digest


def test_a_store_that_refuses_is_found_out_after_three_prefixes(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    def before(digest: Digest) -> None:
        raise StorageError("connection refused")

    source.before = before
    kept = store(base, source)
    for digest in names[:3]:
        refused(kept, digest, clock)
    begun = len(source.asked)
    assert refused(kept, names[3], clock).code == "prefix.fetch_failed"
    assert len(source.asked) == begun, "it was not asked for"
