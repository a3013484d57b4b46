"""Resident prefixes within their bytes: what goes, what stays, who waits and who is refused."""

from __future__ import annotations

import pytest
import torch

from foreword.artifact import Digest
from foreword.errors import EngineFailed, PrefixUnavailable
from foreword.prefix import kv as kv_module
from foreword.prefix.base_model import BaseModel
from foreword.serving.engine.residency.store import (
    LoadLimits,
)
from tests.serving.prefix_samples import (
    LENGTH,
    Clock,
    Source,
    artifact,
    kv,
    load,
    one,
    refused,
    same,
    step,
    store,
    until,
    use,
)


def test_what_is_pinned_stays_and_what_is_idle_makes_room(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source, room=2)
    pinned = load(kept, names[0], clock)
    kept.pin(pinned)
    kept.pin(pinned)
    for digest in names[1:5]:
        use(kept, digest, clock)
        assert kept.want(names[0], clock.now) is pinned
    kept.unpin(pinned)
    assert not kept.evict(names[0]), "one of its two requests still runs"
    kept.unpin(pinned)
    assert kept.evict(names[0])
    assert not kept.evict(names[0])
    assert kept.stats().evictions == 4


def test_a_pin_of_what_is_gone_is_refused_and_pins_are_counted(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source)
    resident = use(kept, names[0], clock)
    with pytest.raises(EngineFailed):
        kept.unpin(resident)
    kept.evict(names[0])
    with pytest.raises(PrefixUnavailable) as caught:
        kept.pin(resident)
    assert caught.value.code == "prefix.not_resident"
    again = load(kept, names[0], clock)
    with pytest.raises(PrefixUnavailable):
        kept.pin(resident)
    kept.pin(again)


def test_when_all_is_pinned_a_request_waits_then_is_refused_and_goes_on_when_there_is_room(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source, room=1, limits=LoadLimits(room=0.5))
    first = load(kept, names[0], clock)
    kept.pin(first)
    error = refused(kept, names[1], clock)
    assert error.code == "prefix.no_room"
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 2.0
    assert kept.stats().device_bytes == one(base)
    clock.pass_by(error.retry_after)
    assert kept.want(names[1], clock.now) is None
    for _ in range(20):
        step(kept, clock)
    kept.unpin(first)
    assert load(kept, names[1], clock).digest == names[1]


def test_a_prefix_larger_than_the_budget_is_refused_at_once_and_evicts_nothing(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    [large] = source.add(artifact(base, 40, length=13))
    kept = store(base, source, room=3)
    resident = load(kept, names[0], clock)
    error = refused(kept, large, clock)
    assert error.code == "prefix.over_budget"
    assert str(13 * one(base) // LENGTH) in str(error)
    assert kept.want(names[0], clock.now) is resident


def test_one_that_comes_back_outlives_those_that_came_once(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source, room=3)
    for digest in names[:4]:
        use(kept, digest, clock)
    back = use(kept, names[0], clock)
    for digest in names[4:]:
        use(kept, digest, clock)
    assert kept.want(names[0], clock.now) is back


def test_what_cannot_fit_for_now_evicts_nothing(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    [double] = source.add(artifact(base, 41, length=2 * LENGTH))
    kept = store(base, source, room=3)
    for digest in names[:2]:
        kept.pin(load(kept, digest, clock))
    idle = use(kept, names[2], clock)
    assert kept.want(double, clock.now) is None
    for _ in range(30):
        step(kept, clock)
    assert kept.want(names[2], clock.now) is idle


def test_while_one_waits_for_room_no_more_bytes_are_fetched(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source, room=1)
    first = load(kept, names[0], clock)
    kept.pin(first)
    assert kept.want(names[1], clock.now) is None
    for _ in range(30):
        step(kept, clock)
    for digest in names[2:]:
        assert kept.want(digest, clock.now) is None
        step(kept, clock)
    assert source.asked == names[:2]
    kept.unpin(first)
    for digest in names[1:]:
        use(kept, digest, clock)


def test_two_requests_whose_prefixes_do_not_fit_together_both_go_on(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source, room=1)
    waiting = set(names[:2])
    for _ in range(2000):
        for digest in sorted(waiting):
            resident = kept.want(digest, clock.now)
            if resident is not None:
                kept.pin(resident)
                kept.unpin(resident)
                waiting.discard(digest)
        if not waiting:
            break
        step(kept, clock)
    assert not waiting
    assert len(source.asked) == 2, "none was evicted before its request came for it"


def test_nobody_who_never_came_keeps_a_prefix_for_ever(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source, room=1, limits=LoadLimits(grace=1.0))
    kept.want(names[0], clock.now)  # and its request is cancelled
    until(kept, clock, lambda: kept.stats().resident == 1)
    assert not kept.evict(names[0])
    assert load(kept, names[1], clock).digest == names[1]


@pytest.mark.parametrize("nth", range(7))
def test_an_allocation_that_fails_costs_one_try_and_no_byte(
    nth: int, base: BaseModel, source: Source, names: list[Digest], clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    calls = []

    def allocate(data: memoryview) -> bytearray:
        calls.append(1)
        if len(calls) == nth + 1:
            raise MemoryError
        return bytearray(data)

    monkeypatch.setattr(kv_module, "bytearray", allocate, raising=False)
    kept = store(base, source)
    assert same(load(kept, names[0], clock), kv(base, 0))
    failures = kept.stats().failures
    assert failures == ({"prefix.no_memory": 1} if nth < 6 else {})
    assert kept.stats().reserved_bytes == 0


def test_no_memory_at_all_is_a_typed_refusal(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def out_of_memory(*_: object, **__: object) -> None:
        raise RuntimeError("not enough memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(torch, "frombuffer", out_of_memory)
    kept = store(base, source)
    error = refused(kept, names[0], clock)
    assert error.code == "prefix.no_memory"
    assert kept.stats().reserved_bytes == kept.stats().device_bytes == 0
