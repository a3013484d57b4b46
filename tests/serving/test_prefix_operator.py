"""Ahead of any request, and by the operator: lists, prefetches, eviction, revocation."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from foreword.artifact import Digest
from foreword.errors import ConfigError, PrefixUnavailable
from foreword.prefix.base_model import BaseModel
from foreword.serving.engine.residency.store import (
    Budgets,
    PrefixStore,
)
from tests.serving.prefix_samples import (
    Clock,
    Source,
    kv,
    load,
    on_disk,
    one,
    same,
    step,
    store,
    until,
    use,
)
from tests.tiny import tiny_base


def test_a_listed_prefix_is_loaded_unasked_and_never_evicted(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source, room=2)
    kept.pin_list([names[0]])
    until(kept, clock, lambda: kept.stats().resident == 1)
    listed = kept.want(names[0], clock.now)
    for digest in names[1:5]:
        use(kept, digest, clock)
    assert kept.want(names[0], clock.now) is listed
    assert not kept.evict(names[0])
    kept.pin_list([])
    kept.check_integrity()
    assert kept.evict(names[0])


def test_a_prefetch_that_fails_is_counted_and_not_raised(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source)
    missing = Digest.of(b"no such prefix")
    kept.prefetch([names[0], missing], clock.now)
    until(kept, clock, lambda: not kept.stats().loading)
    assert kept.want(names[0], clock.now) is not None
    assert kept.stats().failures == {"prefix.fetch_failed": 1}


def test_a_prefetch_without_room_closes_no_door_on_a_request(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source, room=1)
    first = load(kept, names[0], clock)
    kept.pin(first)
    kept.prefetch([names[1]], clock.now)
    until(kept, clock, lambda: not kept.stats().loading)
    assert kept.stats().failures == {"prefix.no_room": 1}
    asked = len(source.asked)
    kept.prefetch([names[1]], clock.now)
    assert kept.stats().loading == 0, "not again at once"
    assert kept.want(names[1], clock.now) is None
    kept.unpin(first)
    assert load(kept, names[1], clock).digest == names[1]
    assert len(source.asked) == asked + 1


def test_what_is_forgotten_runs_to_its_end_and_is_pinned_by_nobody_else(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock, tmp_path: Path
) -> None:
    disk = on_disk(tmp_path)
    kept = store(base, source, room=2, disk=disk)
    running = load(kept, names[0], clock)
    kept.pin(running)
    until(kept, clock, lambda: names[0] in disk)
    kept.forget(names[0], clock.now)
    with pytest.raises(PrefixUnavailable):
        kept.pin(running)
    until(kept, clock, lambda: names[0] not in disk)
    again = load(kept, names[0], clock)
    assert again is not running
    assert kept.stats().device_bytes == 2 * one(base), "the old one still takes up its bytes"
    assert same(running, kv(base, 0))
    kept.unpin(running)
    assert kept.stats().device_bytes == one(base)
    assert source.asked == [names[0]] * 2


def test_what_is_forgotten_on_its_way_never_arrives(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock, gate: threading.Event
) -> None:
    source.before = lambda digest: (gate.wait(5), None)[1]
    kept = store(base, source)
    kept.want(names[0], clock.now)
    step(kept, clock)
    kept.forget(names[0], clock.now)
    gate.set()
    for _ in range(20):
        assert step(kept, clock) == []
    assert kept.stats().loading == kept.stats().resident == 0


def test_after_closing_nothing_is_held(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source)
    load(kept, names[0], clock)
    kept.want(names[1], clock.now)
    kept.close()
    kept.check_integrity()
    stats = kept.stats()
    assert (stats.device_bytes, stats.reserved_bytes, stats.loading) == (0, 0, 0)


def test_hits_are_pins_that_did_not_wait(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source)
    for digest in [names[0], names[0], names[1], names[0]]:
        use(kept, digest, clock)
    assert (kept.stats().hits, kept.stats().misses) == (2, 2)


def test_a_base_on_another_device_keeps_evicted_prefixes_in_host_memory(
    source: Source, names: list[Digest], clock: Clock
) -> None:
    base = tiny_base()
    base.model.to("meta")  # a device whose tensors have no numbers, which is enough to hold them
    kept = PrefixStore(base, source, Budgets(one(base), host=2 * one(base)))
    for digest in names[:2]:
        assert load(kept, digest, clock).kv.device.type == "meta"
    assert kept.stats().host_bytes == 2 * one(base)
    load(kept, names[0], clock)
    assert kept.stats().loads == {"fetch": 2, "host": 1}
    load(kept, names[2], clock)
    assert kept.stats().host_bytes == 2 * one(base)
    kept.forget(names[2], clock.now)
    assert kept.stats().host_bytes == one(base)
    kept.close()


def test_on_a_cpu_the_host_budget_holds_nothing(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = PrefixStore(base, source, Budgets(one(base), host=10 * one(base)))
    for digest in (names[0], names[1], names[0]):
        load(kept, digest, clock)
    assert kept.stats().host_bytes == 0
    assert kept.stats().loads == {"fetch": 3}
    kept.close()


def test_a_budget_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError):
        Budgets(device=-1)
