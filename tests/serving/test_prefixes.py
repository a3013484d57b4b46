"""From a digest to a resident prefix: the right one, once, proved on this base."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from foreword.artifact import Digest, pack
from foreword.prefix import kv as kv_module
from foreword.prefix.base_model import BaseModel
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
    use,
)
from tests.tiny import tiny_base


def test_each_digest_gives_its_own_numbers(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    kept = store(base, source, room=8)
    for number, digest in enumerate(names):
        resident = load(kept, digest, clock)
        assert (resident.digest, resident.name) == (digest, f"acme/p{number}")
        assert (resident.version, resident.length, resident.nbytes) == ("1.0.0", LENGTH, one(base))
        assert same(resident, kv(base, number))
        assert kept.want(digest, clock.now) is resident
    assert kept.stats().device_bytes == 8 * one(base)


def test_500_requests_for_one_prefix_are_one_fetch(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock, gate: threading.Event
) -> None:
    source.before = lambda digest: (gate.wait(5), None)[1]
    kept = store(base, source)
    for _ in range(500):
        assert kept.want(names[0], clock.now) is None
    step(kept, clock)
    gate.set()
    resident = load(kept, names[0], clock)
    assert all(kept.want(names[0], clock.now) is resident for _ in range(500))
    assert source.asked == [names[0]]


def test_a_source_that_gives_another_prefix_is_found_out(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    source.known[names[0]] = source.known[names[1]]
    kept = store(base, source)
    assert refused(kept, names[0], clock).code == "prefix.damaged"
    assert load(kept, names[1], clock).digest == names[1]


def test_a_prefix_of_another_base_is_refused_before_its_tensors_are_built(
    base: BaseModel, source: Source, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    [digest] = source.add(artifact(tiny_base(seed=1), 1))
    monkeypatch.setattr(kv_module.PrefixKV, "from_artifact", None)
    kept = store(base, source)
    error = refused(kept, digest, clock)
    assert error.code == "prefix.does_not_fit_base"
    assert "other weights" in str(error)


def test_a_prefix_that_behaves_otherwise_is_refused(
    base: BaseModel, source: Source, clock: Clock
) -> None:
    good = artifact(base, 1, probed=True)
    facts = {
        name: getattr(good.manifest, name)
        for name in (
            *("name", "version", "created", "base", "geometry", "length", "dtype"),
            *("prompt", "training"),
        )
    }
    probes = tuple(
        replace(probe, logits=tuple(logit + 1.0 for logit in probe.logits))
        for probe in good.manifest.probes
    )
    lying = pack(**facts, probes=probes, tensors=kv(base, 1).to_bytes())
    honest, liar = source.add(good, lying)
    kept = store(base, source)
    error = refused(kept, liar, clock)
    assert error.code == "prefix.does_not_fit_base"
    assert "probe logits differ" in str(error)
    assert kept.stats().reserved_bytes == 0
    assert load(kept, honest, clock).digest == honest


def test_what_was_proved_in_this_process_is_not_proved_again(
    base: BaseModel, source: Source, clock: Clock
) -> None:
    [digest] = source.add(artifact(base, 1, probed=True))
    runs = []
    hook = base.model.register_forward_hook(lambda *_: runs.append(1))
    try:
        kept = store(base, source)
        use(kept, digest, clock)
        once = len(runs)
        assert once > 0
        assert kept.evict(digest)
        load(kept, digest, clock)
        assert len(runs) == once
        kept.forget(digest, clock.now)
        load(kept, digest, clock)
        assert len(runs) == 2 * once, "what was forgotten is proved anew"
    finally:
        hook.remove()


def test_at_most_one_probe_runs_in_a_step(
    base: BaseModel, source: Source, clock: Clock, gate: threading.Event
) -> None:
    digests = source.add(*(artifact(base, number, probed=True) for number in range(20, 24)))
    kept = store(base, source, room=4, workers=4)
    for digest in digests:
        kept.want(digest, clock.now)
    landed = []
    while sum(map(len, landed)) < 4:
        landed.append(step(kept, clock))
    assert max(map(len, landed)) == 1


def test_a_model_that_breaks_in_a_probe_breaks_one_prefix_only(
    base: BaseModel, source: Source, names: list[Digest], clock: Clock
) -> None:
    [digest] = source.add(artifact(base, 30, probed=True))
    kept = store(base, source)

    def broken(*_: object) -> None:
        raise RuntimeError("\x1b[31m shapes do not match")

    hook = base.model.register_forward_pre_hook(broken)
    try:
        error = refused(kept, digest, clock)
    finally:
        hook.remove()
    assert error.code == "prefix.probe_failed"
    assert str(error).isprintable()
    assert load(kept, names[0], clock).digest == names[0]
    clock.pass_by(error.retry_after or 0.0)
    assert load(kept, digest, clock).digest == digest
