"""gc takes what nothing needs, and no order of events makes it take what a publish relies on."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foreword.artifact import Artifact, Digest
from foreword.errors import NotFound, RegistryError, UsageError
from foreword.registry.blobs import BlobStore
from foreword.registry.directory import DirectoryBlobs
from foreword.registry.gc import GRACE, condemned, gc, needed
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from tests.artifact.samples import tensors
from tests.registry.interleaving import Actor, GatedBlobs, GatedDatabase
from tests.registry.samples import BASE, NAME, POLICY, by, key, publish, sample, signed
from tests.registry.scratch import scratch


def later(graces: float = 2) -> datetime:
    return datetime.now(UTC) + graces * GRACE


def there(blobs: BlobStore) -> set[Digest]:
    return {blob.digest for blob in blobs.stored()}


def digests(artifact: Artifact) -> set[Digest]:
    """Manifest, tensors, envelope."""
    envelope = Digest.of(signed(artifact, key("ana")))
    return {artifact.digest, artifact.manifest.tensors.sha256, envelope}


def other_tensors(start: float) -> dict[str, bytes]:
    """Numbers no other version has, so that it shares no tensor file."""
    return {name: struct.pack("<f", start) + data[4:] for name, data in tensors().items()}


@pytest.fixture
def two(registry: Registry) -> tuple[Registry, Artifact, Artifact]:
    """A registry with a version that is retired and one that is not."""
    old = publish(registry, "1.0.0", tensors=other_tensors(41.0))
    new = publish(registry, "1.1.0")
    registry.retire(f"{NAME}@1.0.0", by=by())
    return registry, old, new


def test_a_dry_run_says_what_would_go_and_touches_nothing(
    two: tuple[Registry, Artifact, Artifact],
) -> None:
    registry, old, _new = two
    before = there(registry.blobs)
    found = gc(registry, later())
    assert {blob.digest for blob in found.condemned} == digests(old)
    assert not found.applied
    assert found.freed == 0
    assert there(registry.blobs) == before
    assert there(condemned(registry.blobs)) == set()


def test_a_blob_goes_in_two_runs_that_are_a_grace_apart(
    two: tuple[Registry, Artifact, Artifact],
) -> None:
    registry, old, new = two
    first = gc(registry, later(), apply=True)
    assert {blob.digest for blob in first.condemned} == digests(old)
    assert there(registry.blobs) == digests(new)
    assert there(condemned(registry.blobs)) == digests(old)
    soon = gc(registry, datetime.now(UTC) + GRACE / 2, apply=True)
    assert soon.destroyed == ()
    last = gc(registry, later(), apply=True)
    assert {blob.digest for blob in last.destroyed} == digests(old)
    assert last.freed == sum(blob.size for blob in first.condemned)
    assert there(condemned(registry.blobs)) == set()
    assert registry.fetch(new.digest, POLICY, by().now).digest == new.digest


def test_what_is_not_needed_but_young_stays(two: tuple[Registry, Artifact, Artifact]) -> None:
    registry, old, new = two
    found = gc(registry, datetime.now(UTC) + GRACE / 2, apply=True)
    assert found.condemned == ()
    assert there(registry.blobs) == digests(old) | digests(new)


def test_putting_a_blob_again_makes_it_young(registry: Registry) -> None:
    digest = registry.blobs.put(b"orphan")
    first = registry.blobs.find(digest)
    assert first
    while (again := registry.blobs.find(digest)) and again.modified == first.modified:
        registry.blobs.put(b"orphan")  # an object store counts in seconds
    assert again
    assert again.modified > first.modified
    assert gc(registry, first.modified + GRACE, apply=True).condemned == ()
    assert gc(registry, again.modified + 2 * GRACE, apply=True).condemned != ()


def test_a_live_version_keeps_every_blob_also_one_it_shares_with_a_retired_one(
    local: Registry,
) -> None:
    publish(local, "1.0.0")
    new = publish(local, "1.1.0")  # the same tensors
    local.retire(f"{NAME}@1.0.0", by=by())
    gc(local, later(), apply=True)
    assert there(local.blobs) == digests(new)
    assert local.fetch(new.digest, POLICY, by().now).digest == new.digest


def test_a_revoked_version_keeps_its_evidence_and_loses_its_tensors(local: Registry) -> None:
    artifact = publish(local)
    local.revoke(f"{NAME}@1.0.0", by=by())
    gc(local, later(), apply=True)
    tensors_digest = artifact.manifest.tensors.sha256
    assert there(local.blobs) == digests(artifact) - {tensors_digest}
    assert local.manifest(artifact.digest) == artifact.manifest
    assert set(needed(local.state)) == there(local.blobs)


def test_remains_of_cut_off_writes_go_when_they_are_old(local: Registry) -> None:
    draft = Path(local.blobs.shown) / "incoming" / "half.blob"
    draft.write_bytes(b"half")
    assert gc(local, datetime.now(UTC), apply=True).drafts == 0
    assert draft.exists()
    assert gc(local, later(), apply=True).drafts == 1
    assert not draft.exists()


def test_a_damaged_blob_that_nothing_needs_goes_at_once(local: Registry) -> None:
    digest = local.blobs.put(b"orphan")
    path = Path(local.blobs.shown) / "sha256" / digest.hex[:2] / digest.hex
    path.chmod(0o644)
    path.write_bytes(b"orphaN")
    gc(local, later(), apply=True)
    assert there(local.blobs) == there(condemned(local.blobs)) == set()
    assert local.blobs.put(b"orphan") == digest


@pytest.mark.parametrize("grace", [timedelta(0), timedelta(minutes=59), timedelta(hours=-1)])
def test_a_grace_that_protects_nothing_is_refused(local: Registry, grace: timedelta) -> None:
    with pytest.raises(UsageError) as caught:
        gc(local, later(), grace=grace)
    assert caught.value.code == "gc.grace"


def test_what_another_journal_condemned_comes_back_with_the_right_one(tmp_path: Path) -> None:
    layout = init(Layout(tmp_path / "right"))
    with Registry.open(layout.directory) as right:
        artifact = publish(right)
        wrong = init(Layout(tmp_path / "wrong", blobs=str(tmp_path / "right" / "blobs")))
        with Registry.open(wrong.directory) as mistaken:
            gc(mistaken, later(), apply=True)
        assert there(right.blobs) == set()
        found = gc(right, later(), apply=True)
        assert set(found.brought_back) == digests(artifact)
        assert right.fetch(artifact.digest, POLICY, by().now).digest == artifact.digest


def test_a_damaged_journal_stops_it_before_it_touches_anything(tmp_path: Path) -> None:
    layout = init(Layout(tmp_path / "registry"))
    with Registry.open(layout.directory) as registry:
        publish(registry)
        before = there(registry.blobs)
        registry.database.run(lambda c: c.exec_driver_sql("DROP TRIGGER journal_no_update"))
        registry.database.run(lambda c: c.exec_driver_sql("UPDATE journal SET actor = 'x'"))
    with Registry.open(layout.directory) as registry:
        with pytest.raises(RegistryError) as caught:
            gc(registry, later(), apply=True)
        assert caught.value.code == "registry.chain"
        assert there(registry.blobs) == before


class Vanishing(DirectoryBlobs):
    """Somebody deletes each blob right after it was read."""

    def get(self, digest: Digest, most: int) -> bytes:
        data = super().get(digest, most)
        self.delete(digest)
        return data


def test_a_put_whose_blob_is_collected_while_it_looks_writes_it(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path / "blobs")
    blobs.create()
    digest = blobs.put(b"data")
    Vanishing(tmp_path / "blobs").put(b"data")
    assert blobs.get(digest, 4) == b"data"


# A publish and a collection, stopped and killed at every step.


ARTIFACT = sample(tensors=other_tensors(43.0))
CONTESTED = ARTIFACT.manifest.tensors.sha256


class Meeting:
    """A publish that finds the tensors there, and a collection that wants to take them.

    To the collection everything is older than the grace, so nothing but the order of looks protects.
    """

    def __init__(self, directory: Path) -> None:
        self.layout = Layout.load(directory)
        self.publish, self.collect = Actor(self._publish), Actor(self._collect)

    @contextlib.contextmanager
    def _registry(self, actor: Actor) -> Iterator[Registry]:
        url = f"sqlite:///{self.layout.directory / 'journal.db'}"
        with contextlib.closing(GatedDatabase(url, actor)) as database:
            blobs = GatedBlobs(self.layout.open_blobs(), actor, CONTESTED)
            yield Registry(database, blobs)

    def _publish(self, actor: Actor) -> None:
        envelopes = (signed(ARTIFACT, key("ana")),)
        with self._registry(actor) as registry:
            registry.publish(
                ARTIFACT.manifest_bytes, ARTIFACT.tensor_bytes, envelopes, policy=POLICY, by=by()
            )

    def _collect(self, actor: Actor) -> None:
        with self._registry(actor) as registry:
            gc(registry, later(20), apply=True)


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry where an earlier publish was cut short after it had put the tensors."""
    layout = init(Layout(tmp_path_factory.mktemp("seed") / "registry"))
    with Registry.open(layout.directory) as registry:
        registry.declare_base(BASE, by=by())
        registry.blobs.put(ARTIFACT.tensor_bytes)
    return layout.directory


@pytest.fixture
def meet(seed: Path) -> Iterator[Callable[[], Meeting]]:
    """Starts a meeting on a copy of the seed."""
    with scratch() as place:
        numbers = itertools.count()

        def start() -> Meeting:
            directory = place / str(next(numbers))
            shutil.copytree(seed, directory)
            return Meeting(directory)

        yield start


def is_published(meeting: Meeting) -> bool:
    with Registry.open(meeting.layout.directory) as registry:
        return ARTIFACT.digest in registry.refresh().versions


def is_whole(meeting: Meeting) -> bool:
    with Registry.open(meeting.layout.directory) as registry:
        try:
            registry.fetch(ARTIFACT.digest, POLICY, by().now)
        except NotFound:
            return False
        return True


def collect_again(meeting: Meeting) -> None:
    with Registry.open(meeting.layout.directory) as registry:
        gc(registry, later(20), apply=True)


def orders(start: Callable[[], Meeting], first: str) -> Iterator[tuple[int, int]]:
    """How far the first goes before the other begins, and how far that goes before it is cut off."""
    lengths = {name: getattr(start(), name).steps(1_000) for name in ("publish", "collect")}
    other = lengths[OTHER[first]]
    return itertools.product(range(lengths[first]), range(1, other + 1))


OTHER = {"publish": "collect", "collect": "publish"}


@pytest.mark.parametrize("first", OTHER)
def test_a_publish_and_a_collection_may_meet_in_any_order(
    meet: Callable[[], Meeting], first: str
) -> None:
    met = 0
    for stop, cut in orders(meet, first):
        meeting = meet()
        one, other = getattr(meeting, first), getattr(meeting, OTHER[first])
        one.steps(stop)
        other.steps(cut)
        one.finish()
        other.finish()
        assert is_whole(meeting), f"{first} stopped at {stop}, {OTHER[first]} at {cut}"
        met += 1
    assert met > 50


@pytest.mark.parametrize("killed", OTHER)
def test_whoever_is_killed_when_they_meet_the_next_collection_mends_it(
    meet: Callable[[], Meeting], killed: str
) -> None:
    met = published = 0
    for stop, cut in orders(meet, killed):
        meeting = meet()
        victim, other = getattr(meeting, killed), getattr(meeting, OTHER[killed])
        victim.steps(stop)
        other.steps(cut)
        victim.kill()
        other.finish()
        collect_again(meeting)
        if is_published(meeting):
            assert is_whole(meeting), f"{killed} killed at {stop}, {OTHER[killed]} stopped at {cut}"
            published += 1
        met += 1
    assert met > 50
    assert published > 10
