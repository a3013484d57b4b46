"""What the store says happened: each load and how it ended, and each prefix that left."""

from __future__ import annotations

import pytest

from foreword.artifact import Digest
from foreword.prefix.base_model import BaseModel
from foreword.serving.engine.residency.store import PrefixStore
from foreword.telemetry.records import PrefixEvicted, PrefixLoaded
from tests.serving.prefix_samples import Clock, Source, one, refused, step, store, use

AT = 1_790_000_000.0


class Heard:
    """Tells loads and leavings apart."""

    def __init__(self) -> None:
        self.loads: list[PrefixLoaded] = []
        self.gone: list[PrefixEvicted] = []

    def __call__(self, record: PrefixLoaded | PrefixEvicted) -> None:
        if isinstance(record, PrefixLoaded):
            self.loads.append(record)
        else:
            self.gone.append(record)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def kept(base: BaseModel, source: Source, heard: Heard) -> PrefixStore:
    return store(base, source, room=2, told=heard, clock=lambda: AT)


def test_a_load_is_told_once_with_where_its_time_went(
    kept: PrefixStore, base: BaseModel, names: list[Digest], heard: Heard, clock: Clock
) -> None:
    began = clock.now
    use(kept, names[0], clock)
    use(kept, names[0], clock)
    (loaded,) = heard.loads
    assert (loaded.digest, loaded.source, loaded.code) == (str(names[0]), "fetch", "")
    assert (loaded.time, loaded.bytes) == (AT, one(base))
    assert loaded.name
    assert loaded.phases.keys() == {"fetch", "room", "attach"}
    assert all(seconds >= 0 for seconds in loaded.phases.values())
    assert 0 < sum(loaded.phases.values()) <= clock.now - began


def test_each_attempt_that_fails_is_told_with_its_code(
    kept: PrefixStore, heard: Heard, clock: Clock
) -> None:
    missing = Digest.of(b"no such prefix")
    refused(kept, missing, clock)
    assert kept.stats().failures == {"prefix.fetch_failed": len(heard.loads)}
    loaded = heard.loads[0]
    assert (loaded.digest, loaded.code) == (str(missing), "prefix.fetch_failed")
    assert (loaded.name, dict(loaded.phases)) == ("", {})


def test_what_made_room_what_was_evicted_and_what_was_forgotten_are_told_apart(
    kept: PrefixStore, names: list[Digest], heard: Heard, clock: Clock
) -> None:
    for digest in names[:3]:
        use(kept, digest, clock)
    assert kept.evict(names[1])
    kept.forget(names[2], clock.now)
    step(kept, clock)
    assert [(each.digest, each.reason) for each in heard.gone] == [
        (str(names[0]), "room"),
        (str(names[1]), "operator"),
        (str(names[2]), "forgotten"),
    ]
    step(kept, clock)
    assert len(heard.gone) == 3
