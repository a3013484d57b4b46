"""A drift that is recorded is told, keeps the data to train from, and changes nothing that serves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from foreword.artifact import Digest
from foreword.errors import ForewordError, NotFound, RegistryError, UsageError
from foreword.registry import decide
from foreword.registry.backup import export, restore
from foreword.registry.decide import Already
from foreword.registry.entries import BaseDeclared, Drifted, Entry, Published, Retired
from foreword.registry.fsck import fsck
from foreword.registry.gc import gc, needed
from foreword.registry.layout import Layout, init
from foreword.registry.lineage import why
from foreword.registry.registry import MAX_WINDOW, Registry
from foreword.registry.retention import Rules, plan
from tests.registry.samples import BASE, NAME, NOW, POLICY, Log, by, claim, facts, publish
from tests.registry.test_gc import digests, later, other_tensors, there

WINDOW, SNAPSHOT = b"the reference window", b'{"input":"a new question"}\n'
BLOBS = {Digest.of(WINDOW), Digest.of(SNAPSHOT)}
SEEN = Drifted(
    NAME, facts("1.0.0").digest, "inputs.mmd", 0.25, 0.001, Digest.of(WINDOW), Digest.of(SNAPSHOT)
)


def record(registry: Registry, version: str = "1.0.0") -> Entry:
    return registry.record_drift(
        f"{NAME}@{version}", measure="inputs.mmd", statistic=0.25, p=0.001, window=WINDOW,
        snapshot=SNAPSHOT, by=by("watch"),
    )  # fmt: skip


def log(*versions: str) -> Log:
    return Log(BaseDeclared(BASE), *(Published(facts(v), (claim(),)) for v in versions))


def again(log: Log, event: Drifted) -> decide.Decision:
    return decide.drift(
        log.state, event.digest, event.measure, event.statistic, event.p, event.window,
        event.snapshot,
    )  # fmt: skip


def test_a_drift_is_recorded_once() -> None:
    journal = log("1.0.0")
    assert again(journal, SEEN) == SEEN
    entry = journal.add(SEEN)
    assert again(journal, SEEN) == Already(entry.seq)
    worse = replace(SEEN, statistic=0.5)
    assert again(journal, worse) == worse


def test_what_is_not_live_or_not_there_does_not_drift() -> None:
    journal = log("1.0.0")
    with pytest.raises(NotFound):
        again(journal, replace(SEEN, digest=Digest.of(b"nobody's")))
    with pytest.raises(UsageError) as refused:
        again(journal, replace(SEEN, measure="x\ny"))
    assert refused.value.code == "registry.measure"
    journal.add(Retired(NAME, SEEN.digest))
    with pytest.raises(ForewordError) as gone:
        again(journal, SEEN)
    assert gone.value.code == "registry.retired"


def test_it_is_told_and_what_serves_serves_on(local: Registry) -> None:
    artifact = publish(local)
    local.release(f"{NAME}@1.0.0", policy=POLICY, by=by())
    before = local.show(NAME).release
    entry = record(local)
    assert record(local) == entry
    assert local.show(NAME).release == before
    (known,) = local.state.version(artifact.digest).drifts
    assert (known.event, known.mark.actor) == (entry.event, "watch")
    (reason,) = why(local, NAME).to_json()["reasons"]
    assert reason["drifts"][0]["measure"] == "inputs.mmd"
    assert reason["drifts"][0]["added"]["seq"] == entry.seq


def test_its_blobs_live_as_long_as_the_version(local: Registry, tmp_path: Path) -> None:
    artifact = publish(local)
    record(local)
    gc(local, later(), apply=True)
    assert there(local.blobs) == digests(artifact) | BLOBS == set(needed(local.state))
    assert fsck(Layout.load(tmp_path / "registry"), NOW).findings == ()
    publish(local, "1.1.0", tensors=other_tensors(5.0))
    local.retire(f"{NAME}@1.0.0", by=by())
    assert not BLOBS & set(needed(local.state))


def test_a_lost_snapshot_is_found_and_recording_again_mends_it(
    local: Registry, tmp_path: Path
) -> None:
    publish(local)
    record(local)
    local.blobs.delete(Digest.of(SNAPSHOT))
    (finding,) = fsck(Layout.load(tmp_path / "registry"), NOW).findings
    assert (finding.code, "drift window" in finding.where) == ("fsck.blob_missing", True)
    record(local)
    assert fsck(Layout.load(tmp_path / "registry"), NOW).is_sound


def test_it_goes_with_an_export(local: Registry, tmp_path: Path) -> None:
    artifact = publish(local)
    record(local)
    export(local, tmp_path / "export", NOW)
    with Registry.open(init(Layout(tmp_path / "other")).directory) as other:
        restore(tmp_path / "export", other)
        assert other.refresh().version(artifact.digest).drifts[0].event.measure == "inputs.mmd"
        assert other.blobs.get(Digest.of(SNAPSHOT), MAX_WINDOW) == SNAPSHOT


def test_a_window_beyond_all_measure_is_refused_before_it_is_put(local: Registry) -> None:
    publish(local)
    with pytest.raises(UsageError) as refused:
        local.record_drift(
            f"{NAME}@1.0.0", measure="length", statistic=1, p=0, window=WINDOW,
            snapshot=bytes(MAX_WINDOW + 1), by=by(),
        )  # fmt: skip
    assert refused.value.code == "registry.window"
    with pytest.raises(RegistryError):
        record(local, "9.9.9")
    assert not BLOBS & there(local.blobs)


def test_retention_keeps_the_newest_that_drifted_until_there_is_a_newer_one() -> None:
    nothing = Rules(keep=0, older_than=timedelta(0), rollbacks=0)
    journal = log("1.0.0")
    journal.add(SEEN)
    (fate,) = plan(journal.state, nothing, NOW + timedelta(days=1)).fates
    assert not fate.goes
    assert "drifted" in fate.reason
    journal.add(Published(facts("1.1.0"), (claim(),)))
    assert all(f.goes for f in plan(journal.state, nothing, NOW + timedelta(days=1)).fates)
