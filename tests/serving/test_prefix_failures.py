"""A prefix that cannot be had: why, when to ask again, and that it hurts no other."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from foreword.artifact import Digest
from foreword.errors import PrefixUnavailable, StorageError, TrustError
from foreword.prefix.base_model import BaseModel
from foreword.serving.engine.residency.store import (
    LoadLimits,
)
from tests.serving.prefix_samples import (
    Clock,
    Source,
    kv,
    load,
    on_disk,
    refused,
    same,
    step,
    store,
    until,
    use,
)


def test_a_store_that_fails_twice_is_asked_again_for_the_same_request(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    def before(digest: Digest) -> None:
        if len(source.asked) <= 2:
            raise StorageError("503")

    source.before = before
    kept = store(base, source)
    assert load(kept, names[0], clock).digest == names[0]
    assert len(source.asked) == 3
    assert kept.stats().failures == {"prefix.fetch_failed": 2}


def test_failures_before_a_success_do_not_count_in_the_next_row(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    def before(digest: Digest) -> None:
        if len(source.asked) % 3:
            raise StorageError("503")

    source.before = before
    kept = store(base, source)
    for _ in range(3):
        use(kept, names[0], clock)
        assert kept.evict(names[0])
    assert len(source.asked) == 9


def test_one_bad_prefix_is_left_alone_and_hurts_no_other(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    bad = names[0]

    def before(digest: Digest) -> None:
        if digest == bad:
            raise StorageError("503")

    source.before = before
    kept = store(base, source)
    error = refused(kept, bad, clock)
    assert error.code == "prefix.fetch_failed"
    assert error.retry_after is not None
    assert error.retry_after <= 2.0
    tries = source.asked.count(bad)
    assert tries == 3
    for digest in names[1:]:
        assert use(kept, digest, clock).digest == digest
    with pytest.raises(PrefixUnavailable):
        kept.want(bad, clock.now)
    assert source.asked.count(bad) == tries, "it was not asked for while the breaker was open"
    clock.pass_by(error.retry_after)
    second = refused(kept, bad, clock)
    assert source.asked.count(bad) == tries + 1, "half-open: one load"
    source.before = lambda digest: None
    clock.pass_by(second.retry_after or 0.0)
    assert load(kept, bad, clock).digest == bad


def test_no_trust_is_not_asked_for_again_until_it_is_forgotten(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    def revoked(digest: Digest) -> None:
        raise TrustError("it was revoked", code="trust.digest_revoked")

    source.before = revoked
    kept = store(base, source)
    error = refused(kept, names[0], clock)
    assert error.code == "prefix.not_verified"
    assert error.retry_after is not None
    assert error.retry_after > 20
    clock.pass_by(20)
    refused(kept, names[0], clock)
    assert len(source.asked) == 1
    source.before = lambda digest: None
    kept.forget(names[0], clock.now)
    assert load(kept, names[0], clock).digest == names[0]


def test_a_store_that_hangs_is_given_up_and_what_it_brings_late_is_dropped(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock, gate: threading.Event,
) -> None:  # fmt: skip
    hangs = set(names[:2])
    source.before = lambda digest: (digest in hangs and gate.wait(30), None)[1]
    kept = store(base, source, workers=2, limits=LoadLimits(fetch=5.0))
    for digest in names[:3]:
        assert kept.want(digest, clock.now) is None
    step(kept, clock)
    clock.pass_by(5.0)
    error = refused(kept, names[0], clock)
    assert error.code == "prefix.fetch_timeout"
    assert load(kept, names[2], clock).digest == names[2], "it only had to wait for a place"
    gate.set()
    for _ in range(20):
        step(kept, clock)
    assert kept.stats().resident == 1


def test_while_the_store_is_down_what_is_resident_or_on_disk_is_served(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock, tmp_path: Path,
    gate: threading.Event,
) -> None:  # fmt: skip
    disk = on_disk(tmp_path)
    first = store(base, source, disk=disk)
    for digest in names[:2]:
        load(first, digest, clock)
    until(first, clock, lambda: all(digest in disk for digest in names[:2]))
    first.close()

    source.asked.clear()
    source.before = lambda digest: (gate.wait(30), None)[1]
    kept = store(base, source, disk=on_disk(tmp_path), workers=1)
    assert kept.want(names[5], clock.now) is None  # takes the only worker, and hangs
    assert same(load(kept, names[1], clock), kv(base, 1))
    assert same(load(kept, names[0], clock), kv(base, 0))
    assert kept.stats().loads == {"disk": 2}
    assert source.asked == [names[5]]


def test_a_damaged_copy_on_disk_is_fetched_again(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock, tmp_path: Path
) -> None:
    disk = on_disk(tmp_path)
    disk.put(source.known[names[0]])
    [tensors] = tmp_path.rglob("*.safetensors")
    data = bytearray(tensors.read_bytes())
    data[-5] ^= 1
    tensors.write_bytes(data)
    kept = store(base, source, disk=disk)
    assert same(load(kept, names[0], clock), kv(base, 0))
    assert kept.stats().loads == {"fetch": 1}
    until(kept, clock, lambda: names[0] in disk)
    assert disk.get(names[0]) is not None


def test_a_disk_that_refuses_costs_copies_and_no_request(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock, tmp_path: Path
) -> None:
    disk = on_disk(tmp_path / "disk")
    (tmp_path / "disk" / names[0].hex[:2]).write_bytes(b"a file where a directory should be")
    kept = store(base, source, disk=disk)
    assert load(kept, names[0], clock).digest == names[0]
    until(kept, clock, lambda: kept.stats().unwritten > 0)
    assert names[0] not in disk
