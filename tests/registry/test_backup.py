"""An export of a live registry is whole, a restore gives the same registry or nothing, anywhere."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from foreword.artifact import Digest
from foreword.errors import Conflict, NotFound, RegistryError
from foreword.registry.backup import BLOBS, JOURNAL, Export, export, open_export, restore
from foreword.registry.database import Database
from foreword.registry.directory import DirectoryBlobs
from foreword.registry.entries import GENESIS
from foreword.registry.fsck import fsck
from foreword.registry.gc import GRACE, gc, needed
from foreword.registry.journal import Journal
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from tests.registry.faults import Place, healthy, numbers
from tests.registry.interleaving import Actor, GatedBlobs, GatedDatabase
from tests.registry.samples import NAME, NOW, POLICY, by, publish
from tests.registry.scratch import scratch
from tests.registry.servers import PostgresServer


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return healthy(tmp_path_factory.mktemp("seed") / "registry")


@pytest.fixture(scope="module")
def exported(seed: Place, tmp_path_factory: pytest.TempPathFactory) -> Export:
    with Registry.open(seed.layout.directory) as registry:
        return export(registry, tmp_path_factory.mktemp("export"), NOW)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(init(Layout(tmp_path / "empty")).directory) as registry:
        yield registry


def is_sound(layout: Layout) -> bool:
    report = fsck(layout, datetime.now(UTC), policy=POLICY)
    assert report.findings == ()
    return True


def layout_of(registry: Registry) -> Layout:
    return Layout.load(registry.database.path.parent)


def test_an_export_says_where_it_ends_and_reads_back_the_same(exported: Export) -> None:
    found = open_export(exported.directory)
    assert found == exported
    assert found.head.seq == len(found.entries) == 17
    assert {blob.digest for blob in found.blobs.stored()} == set(needed(found.state))


def test_what_was_exported_anywhere_is_restored_on_this_machine(
    registry: Registry, empty: Registry, tmp_path: Path
) -> None:
    artifact = publish(registry, "1.0.0")
    publish(registry, "1.1.0", tensors=numbers(7.0))
    registry.release(f"{NAME}@1.0.0", policy=POLICY, by=by())
    made = export(registry, tmp_path / "export", NOW)
    restore(tmp_path / "export", empty)
    assert empty.refresh() == registry.refresh()
    assert empty.refresh().head == made.head
    assert empty.fetch(artifact.digest, POLICY, NOW).digest == artifact.digest
    assert is_sound(layout_of(empty))


def test_what_was_exported_here_is_restored_anywhere_and_goes_on_there(
    exported: Export, registry: Registry, place: Layout
) -> None:
    restore(exported.directory, registry)
    assert registry.refresh() == exported.state
    assert is_sound(place)
    publish(registry, "3.0.0")
    registry.release(f"{NAME}@1.2.0", policy=POLICY, by=by())
    assert is_sound(place)


def test_a_restore_can_be_run_again(exported: Export, empty: Registry) -> None:
    restore(exported.directory, empty)
    lost = next(iter(needed(exported.state)))
    empty.blobs.delete(lost)
    restore(exported.directory, empty)  # also brings back what was lost since
    assert empty.refresh() == exported.state
    assert is_sound(layout_of(empty))


def test_an_empty_registry_is_exported_and_restored(
    local: Registry, empty: Registry, tmp_path: Path
) -> None:
    assert export(local, tmp_path / "export", NOW).head == GENESIS
    restore(tmp_path / "export", empty)
    assert empty.refresh().head == GENESIS


def test_a_registry_in_use_is_not_restored_into(exported: Export, local: Registry) -> None:
    publish(local)
    before = local.refresh()
    with pytest.raises(RegistryError) as caught:
        restore(exported.directory, local)
    assert caught.value.code == "restore.not_empty"
    assert local.refresh() == before


def test_a_restore_does_not_lose_the_rule_that_others_have_to_approve(tmp_path: Path) -> None:
    strict = init(Layout(tmp_path / "strict", approvals=2))
    with Registry.open(strict.directory) as registry:
        export(registry, tmp_path / "export", NOW)
    lax = init(Layout(tmp_path / "lax", approvals=1))
    with Registry.open(lax.directory) as registry, pytest.raises(RegistryError) as caught:
        restore(tmp_path / "export", registry)
    assert caught.value.code == "restore.approvals"


def test_whoever_wrote_first_keeps_the_journal(exported: Export, database: Database) -> None:
    journal = Journal(database)
    journal.append(GENESIS, exported.entries[0].event, by("ben"))
    with pytest.raises(Conflict) as caught:
        journal.take_over(exported.entries)
    assert caught.value.code == "registry.raced"
    assert [entry.actor for entry in journal.read()] == ["ben"]


def test_entries_are_taken_over_once_and_all_at_once(exported: Export, database: Database) -> None:
    journal = Journal(database)
    journal.take_over(())
    journal.take_over(exported.entries)
    journal.take_over(exported.entries)  # its answer was lost the first time
    assert tuple(journal.read()) == exported.entries
    gap = (exported.entries[0], *exported.entries[2:])
    with contextlib.suppress(Conflict):
        journal.take_over(gap)
    assert tuple(journal.read()) == exported.entries


# Exporting while others write.


def test_an_export_is_whole_whatever_is_written_meanwhile(local: Registry, tmp_path: Path) -> None:
    publish(local, "1.0.0")
    stop = threading.Event()

    def write() -> None:
        for patch in itertools.count(1):
            publish(local, f"2.0.{patch}", tensors=numbers(float(patch)))
            if patch % 3 == 0:
                local.retire(f"{NAME}@2.0.{patch - 1}", by=by())
                gc(local, datetime.now(UTC) + 2 * GRACE, apply=True)
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    heads = []
    try:
        with Registry.open(layout_of(local).directory) as reader:
            for number in range(4):
                made = export(reader, tmp_path / f"export-{number % 2}", NOW)
                heads.append(made.head.seq)
                target = init(Layout(tmp_path / f"target-{number}"))
                with Registry.open(target.directory) as registry:
                    restore(made.directory, registry)
                    assert registry.refresh().head == made.head
                assert is_sound(target)
    finally:
        stop.set()
        writer.join()
    assert heads == sorted(set(heads))


class Racing(DirectoryBlobs):
    """Something happens once, just before a blob is read."""

    def __init__(self, root: Path, race: Callable[[Digest], None]) -> None:
        super().__init__(root)
        self._race: Callable[[Digest], None] | None = race

    def get(self, digest: Digest, most: int) -> bytes:
        race, self._race = self._race, None
        if race:
            race(digest)
        return super().get(digest, most)


def test_a_version_that_is_retired_and_collected_during_an_export_is_left_out(
    local: Registry, tmp_path: Path
) -> None:
    publish(local, "1.0.0")
    directory = layout_of(local).directory

    def race(digest: Digest) -> None:
        local.retire(f"{NAME}@1.0.0", by=by())
        publish(local, "1.1.0", tensors=numbers(7.0))
        local.blobs.delete(digest)

    reader = Registry(local.database, Racing(directory / "blobs", race))
    made = export(reader, tmp_path / "export", NOW)
    assert made.head == local.refresh().head
    restored = init(Layout(tmp_path / "restored"))
    with Registry.open(restored.directory) as registry:
        restore(made.directory, registry)
    assert is_sound(restored)


def test_a_blob_that_is_lost_stops_the_export(local: Registry, tmp_path: Path) -> None:
    artifact = publish(local)
    export(local, tmp_path / "good", NOW)
    local.blobs.delete(artifact.digest)
    with pytest.raises(NotFound) as caught:
        export(local, tmp_path / "bad", NOW)
    assert caught.value.code == "registry.blob_missing"
    with pytest.raises(NotFound) as caught:
        open_export(tmp_path / "bad")
    assert caught.value.code == "export.missing"
    export(local, tmp_path / "good", NOW)  # which has it already


def test_an_older_export_stays_until_the_new_one_is_there(local: Registry, tmp_path: Path) -> None:
    publish(local, "1.0.0")
    first = export(local, tmp_path / "export", NOW)
    second = publish(local, "1.1.0", tensors=numbers(7.0))
    local.blobs.delete(second.manifest.tensors.sha256)
    with pytest.raises(NotFound):
        export(local, tmp_path / "export", NOW)
    assert open_export(tmp_path / "export") == first


# Damage.


@pytest.fixture
def copy(exported: Export, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported.directory, tmp_path / "copy"))


def changed(data: bytes, rng: random.Random) -> bytes:
    """Another journal: a bit, a line or the end of it differs; not the line of no hash, the header."""
    at = rng.randrange(data.index(b"\n"), len(data))
    kind = rng.choice(["flip", "cut", "twice", "more", "line"])
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == "line":
        lines = data.splitlines(keepends=True)
        del lines[rng.randrange(1, len(lines))]
        return b"".join(lines)
    more = rng.choice([b"\n", b"{}\n", b" "])
    return {"cut": data[:at], "twice": data + data, "more": data + more}[kind]


def test_an_export_that_was_changed_is_refused_and_nothing_is_restored(
    exported: Export, empty: Registry, tmp_path: Path
) -> None:
    rng, data = random.Random(1), (exported.directory / JOURNAL).read_bytes()
    for _ in range(300):
        (tmp_path / JOURNAL).write_bytes(changed(data, rng))
        with pytest.raises(RegistryError) as caught:
            restore(tmp_path, empty)
        assert caught.value.code in {"export.damaged", "registry.chain", "registry.entry"}
        assert str(caught.value).isprintable()
    assert list(empty.blobs.stored()) == []
    assert empty.refresh().head == GENESIS


@pytest.mark.parametrize("lost", [True, False])
def test_a_blob_that_is_lost_or_damaged_stops_the_restore_before_any_entry(
    copy: Path, empty: Registry, lost: bool
) -> None:
    blobs = sorted((copy / BLOBS / "sha256").glob("*/*"))
    blobs[7].chmod(0o644)
    blobs[7].unlink() if lost else blobs[7].write_bytes(b"damaged")
    with pytest.raises(RegistryError) as caught:
        restore(copy, empty)
    assert caught.value.code == ("registry.blob_missing" if lost else "registry.blob_damaged")
    assert empty.refresh().head == GENESIS


def test_where_there_is_no_export_it_says_so(empty: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        restore(tmp_path / "nothing", empty)
    assert caught.value.code == "export.missing"


# Killed at every step.


class Restoring:
    """A restore that is stopped before every step; each blob is one."""

    def __init__(self, directory: Path, source: Path) -> None:
        self.layout = init(Layout(directory))
        self._source = source
        self.actor = Actor(self._restore)

    def _restore(self, actor: Actor) -> None:
        with contextlib.closing(
            GatedDatabase(f"sqlite:///{self.layout.directory / 'journal.db'}", actor)
        ) as database:
            blobs = GatedBlobs(self.layout.open_blobs(), actor)
            restore(self._source, Registry(database, blobs))


def test_a_restore_that_was_killed_shows_nothing_or_everything_and_can_be_run_again(
    exported: Export,
) -> None:
    with scratch() as directory:
        steps = Restoring(directory / "whole", exported.directory).actor.steps(10_000)
        for number in range(steps):
            one = Restoring(directory / str(number), exported.directory)
            one.actor.steps(number)
            one.actor.kill()
            with Registry.open(one.layout.directory) as registry:
                assert registry.refresh().head in (GENESIS, exported.head)
                restore(exported.directory, registry)
                assert registry.refresh() == exported.state
            assert is_sound(one.layout)
    assert steps > 30


# The database by its own means and the blobs by any copy, as docs/operations.md says.


def write_meanwhile(registry: Registry) -> None:
    """What others do between the copy of the database and that of the blobs."""
    publish(registry, "5.0.0", tensors=numbers(70.0))
    registry.retire(f"{NAME}@1.4.0", by=by())
    gc(registry, datetime.now(UTC) + 2 * GRACE, apply=True)


def mended(layout: Layout) -> bool:
    with Registry.open(layout.directory) as registry:
        gc(registry, datetime.now(UTC), apply=True)
    return is_sound(layout)


def test_a_raw_copy_of_sqlite_and_directory_is_sound_after_one_gc(
    seed: Place, tmp_path: Path
) -> None:
    place = seed.copy(tmp_path / "registry")
    target = tmp_path / "restored"
    target.mkdir()
    with Registry.open(place.layout.directory) as registry:
        with contextlib.closing(sqlite3.connect(place.database)) as connection:
            connection.execute("VACUUM INTO ?", (str(target / "journal.db"),))
        write_meanwhile(registry)
        shutil.copytree(place.blobs, target / "blobs")
        shutil.copy(place.layout.directory / "registry.toml", target)
    restored = Layout.load(target)
    missing = fsck(restored, datetime.now(UTC), policy=POLICY)
    assert {finding.code for finding in missing.findings} == {"fsck.blob_condemned"}
    assert mended(restored)


def test_a_raw_copy_of_postgres_is_sound_after_one_gc(
    exported: Export, postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    layout = init(Layout(tmp_path / "registry", database=postgres_url))
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    schema = postgres_url.rpartition("%3D")[2]
    with Registry.open(layout.directory) as registry:
        restore(exported.directory, registry)
        dump = subprocess.run(
            [programs / "pg_dump", "--schema", schema, postgres_server.url],
            check=True, capture_output=True,
        ).stdout  # fmt: skip
        write_meanwhile(registry)
    postgres_server.execute(f"CREATE DATABASE {schema}")
    other = postgres_server.url.replace("/postgres", f"/{schema}").replace(
        f"//{schema}@", "//postgres@"
    )
    subprocess.run(
        [programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", other],
        input=dump, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"{other}?options=-csearch_path%3D{schema}"
    shutil.copytree(tmp_path / "registry" / "blobs", tmp_path / "restored" / "blobs")
    restored = init(Layout(tmp_path / "restored", database=url))
    with Registry.open(restored.directory) as registry:
        assert registry.refresh().head == exported.head
    assert mended(restored)
