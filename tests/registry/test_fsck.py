"""fsck finds every kind of fault and nothing else, says how to mend it, and changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import pytest

from foreword.artifact import Digest
from foreword.registry.entries import Head
from foreword.registry.fsck import Report, fsck
from foreword.registry.gc import GRACE, gc
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from tests.registry.faults import FAULTS, Place, healthy, numbers
from tests.registry.samples import NAME, POLICY, by, publish


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return healthy(tmp_path_factory.mktemp("seed") / "registry")


@pytest.fixture
def victim(seed: Place, tmp_path: Path) -> Place:
    return seed.copy(tmp_path / "registry")


def look(layout: Layout, **options: object) -> Report:
    return fsck(layout, datetime.now(UTC), policy=POLICY, **options)  # type: ignore[arg-type]


def codes(report: Report) -> list[str]:
    return [finding.code.removeprefix("fsck.") for finding in report.findings]


def test_a_healthy_registry_has_no_findings(seed: Place) -> None:
    report = seed.look()
    assert report.findings == ()
    assert report.is_sound
    assert (report.entries, report.versions, report.blobs) == (17, 7, 18)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_kind_of_fault_is_found_where_it_is(victim: Place, fault: str) -> None:
    expected = FAULTS[fault](victim, random.Random(fault))
    report = victim.look()
    assert expected.met_by(report), (expected, report.findings)
    for finding in report.findings:
        assert finding.mend
        assert all(text.isprintable() for text in finding.to_json().values()), finding


def test_looking_changes_nothing(victim: Place) -> None:
    def everything() -> dict[str, str]:
        files = [path for path in victim.layout.directory.rglob("*") if path.is_file()]
        kept = [path for path in files if not path.name.endswith(("-wal", "-shm"))]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}

    before = everything()
    victim.look()
    assert everything() == before
    assert not (victim.blobs / "condemned").exists()


def test_only_broken_things_make_it_unsound(victim: Place) -> None:
    FAULTS["blob that nothing needs"](victim, random.Random(0))
    FAULTS["alias for what ended"](victim, random.Random(0))
    report = victim.look()
    assert {finding.severity for finding in report.findings} == {"leftover", "doubtful"}
    assert report.is_sound
    FAULTS["blob gone"](victim, random.Random(0))
    assert not victim.look().is_sound


def test_what_a_publish_under_way_has_put_is_not_called_an_orphan(victim: Place) -> None:
    with Registry.open(victim.layout.directory) as registry:
        registry.blobs.put(b"on its way")
    (victim.blobs / "incoming" / "half.blob").write_bytes(b"half")
    assert codes(look(victim.layout)) == []
    late = fsck(victim.layout, datetime.now(UTC) + timedelta(hours=2))
    assert sorted(codes(late)) == ["draft", "orphan"]


def test_writers_may_go_on_while_it_looks(victim: Place) -> None:
    stop = threading.Event()

    def write() -> None:
        with Registry.open(victim.layout.directory) as registry:
            for patch in range(1, 1_000):
                publish(registry, f"2.0.{patch}", tensors=numbers(100.0 + patch))
                registry.retire(f"{NAME}@2.0.{patch}", by=by())
                gc(registry, datetime.now(UTC) + 2 * GRACE, apply=True)
                if stop.is_set():
                    return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        reports = [look(victim.layout) for _ in range(15)]
    finally:
        stop.set()
        writer.join()
    assert [report.findings for report in reports] == [()] * 15
    assert reports[-1].entries > reports[0].entries


def test_an_entry_that_cannot_be_read_makes_no_blob_an_orphan(victim: Place) -> None:
    # What stands behind it may need every blob that nothing before it does.
    FAULTS["entry left out"](victim, random.Random(3))
    report = fsck(victim.layout, datetime.now(UTC) + timedelta(days=9))
    assert "chain" in codes(report)
    assert "orphan" not in codes(report)


def test_a_shallow_look_reads_no_blob_and_misses_only_what_is_inside(victim: Place) -> None:
    FAULTS["blob with one bit flipped"](victim, random.Random(0))
    assert codes(look(victim.layout, deep=False)) == []
    FAULTS["blob gone"](victim, random.Random(1))
    report = look(victim.layout, deep=False)
    assert codes(report) == ["blob_missing"]
    assert report.size == 0


def test_tensors_that_were_cut_off_are_seen_without_reading_them(victim: Place) -> None:
    version = next(v for v in victim.state.versions.values() if v.version == "1.1.0")
    path = victim.blob(version.facts.tensors.sha256)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert codes(look(victim.layout, deep=False)) == ["blob_damaged"]


def test_a_head_that_is_there_is_no_finding_and_one_with_another_hash_is(victim: Place) -> None:
    with Registry.open(victim.layout.directory) as registry:
        some = registry.journal.entry(5).head
    assert codes(look(victim.layout, known=some)) == []
    assert codes(look(victim.layout, known=Head(5, Digest.of(b"other")))) == ["cut"]


def test_what_was_revoked_needs_no_tensors_any_more(victim: Place) -> None:
    with Registry.open(victim.layout.directory) as registry:
        gone = gc(registry, datetime.now(UTC) + 2 * GRACE, apply=True)
    assert len(gone.condemned) == 4  # one retired version, and the tensors of one revoked
    assert codes(look(victim.layout)) == []


def test_every_finding_it_says_gc_mends_is_mended_by_gc(victim: Place) -> None:
    for fault in ("blob that was collected", "write that was cut short", "blob that nothing needs"):
        FAULTS[fault](victim, random.Random(1))
    assert sorted(codes(victim.look())) == ["blob_condemned", "draft", "orphan"]
    with Registry.open(victim.layout.directory) as registry:
        gc(registry, datetime.now(UTC), apply=True)
    assert codes(victim.look()) == []


def test_publishing_again_mends_what_it_says_that_mends(local: Registry, tmp_path: Path) -> None:
    artifact = publish(local)
    layout = Layout.load(tmp_path / "registry")
    for blob in list(local.blobs.stored()):
        local.blobs.delete(blob.digest)
    local.blobs.put(b"so that the store is not empty")
    assert codes(look(layout)) == ["blob_missing"] * 3
    assert publish(local).digest == artifact.digest
    assert codes(look(layout)) == []


# On every database and blob store.


def test_a_registry_is_healthy_wherever_it_lies(place: Layout, registry: Registry) -> None:
    publish(registry, "1.0.0")
    publish(registry, "1.1.0", tensors=numbers(7.0))
    registry.release(f"{NAME}@1.0.0", policy=POLICY, by=by())
    registry.retire(f"{NAME}@1.1.0", by=by())
    gc(registry, datetime.now(UTC) + 2 * GRACE, apply=True)
    report = look(place)
    assert report.findings == ()
    assert (report.entries, report.versions, report.blobs) == (5, 2, 3)


GUARDS = {
    "gone": "DROP TRIGGER journal_no_change ON journal",
    "off": "ALTER TABLE journal DISABLE TRIGGER journal_next",
    "hollow": "CREATE OR REPLACE FUNCTION journal_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN RETURN NULL; END'",
    "rule": "CREATE RULE silent AS ON INSERT TO journal DO INSTEAD NOTHING",
    "other": "CREATE TRIGGER more BEFORE INSERT ON journal FOR EACH ROW EXECUTE FUNCTION journal_next()",
}


@pytest.fixture
def on_postgres(postgres_url: str, tmp_path: Path) -> Layout:
    layout = init(Layout(tmp_path / "registry", database=postgres_url))
    with Registry.open(layout.directory) as registry:
        publish(registry)
    return layout


@pytest.mark.parametrize("statement", GUARDS.values(), ids=GUARDS)
def test_a_guard_that_was_changed_is_found_on_postgres(on_postgres: Layout, statement: str) -> None:
    with contextlib.closing(on_postgres.open_database()) as database:
        database.run(lambda connection: connection.exec_driver_sql(statement))
    report = look(on_postgres)
    assert codes(report) == ["guard"]
    assert not report.is_sound


@pytest.mark.parametrize(
    ("change", "code"),
    [("reason = 'better'", "chain"), ("name = 'acme/other'", "row"), ("seq = 7", "chain")],
)
def test_an_entry_that_was_changed_is_found_on_postgres(
    on_postgres: Layout, change: str, code: str
) -> None:
    with contextlib.closing(on_postgres.open_database()) as database:
        for statement in (
            "ALTER TABLE journal DISABLE TRIGGER USER",
            f"UPDATE journal SET {change} WHERE seq = 2",  # noqa: S608
            "ALTER TABLE journal ENABLE TRIGGER USER",
        ):
            database.run(lambda connection, text=statement: connection.exec_driver_sql(text))
    assert codes(look(on_postgres)) == [code]


def test_a_database_that_does_not_answer_is_a_finding(local: Registry, tmp_path: Path) -> None:
    nobody = Layout(tmp_path / "registry", database="postgresql://postgres@127.0.0.1:1/none")
    report = look(nobody)
    assert codes(report) == ["database"]
    assert not report.is_sound


def test_blobs_in_an_object_store_are_looked_at_as_those_in_a_directory(
    s3_url: str, tmp_path: Path
) -> None:
    layout = init(Layout(tmp_path / "registry", blobs=s3_url))
    with Registry.open(layout.directory) as registry:
        first = publish(registry, "1.0.0")
        second = publish(registry, "1.1.0", tensors=numbers(7.0))
    store = obstore.store.from_url(s3_url, client_options={"allow_http": True})

    def key(digest: Digest) -> str:
        return f"sha256/{digest.hex[:2]}/{digest.hex}"

    obstore.delete(store, key(first.digest))
    obstore.put(store, key(second.manifest.tensors.sha256), b"other bytes")
    obstore.put(store, "sha256/00/README", b"what is this")
    report = look(layout)
    assert sorted(codes(report)) == ["blob_damaged", "blob_missing", "stranger"]
    where = {finding.code: finding.where for finding in report.findings}
    assert first.digest.hex in where["fsck.blob_missing"]
    assert second.manifest.tensors.sha256.hex in where["fsck.blob_damaged"]
    assert where["fsck.stranger"].endswith("/sha256/00/README")


def test_an_object_store_that_does_not_answer_is_one_finding(
    local: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(local)
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a",
                        "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    report = look(Layout(tmp_path / "registry", blobs="s3://nowhere/at-all"))
    assert codes(report) == ["store"]
    assert report.entries == 2


def test_every_code_is_explained() -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs" / "operations.md").read_text()
    sources = (root / "src" / "foreword" / "registry" / "fsck").glob("*.py")
    called = r'\b(?:broken|doubtful|leftover|severity)\(\s*"([a-z_]+)"'
    used = {code for path in sources for code in re.findall(called, path.read_text())}
    used |= {"schema", "database", "chain", "entry"}  # chosen by what was refused
    told = set(re.findall(r"^\| `fsck\.([a-z_]+)`", text, re.MULTILINE))
    assert used == told
