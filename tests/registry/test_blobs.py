"""A blob is the bytes of its digest or an error, in a directory and in an object store alike."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from foreword.artifact import Digest
from foreword.errors import ConfigError, NotFound, RegistryError, StorageError
from foreword.registry.blobs import BlobStore
from foreword.registry.directory import DirectoryBlobs
from foreword.registry.objects import ObjectBlobs, open_blobs

ROOT = Path(__file__).parents[2]
DATA = b"a prefix " * 1000
DIGEST = Digest.of(DATA)


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryBlobs:
    blobs = DirectoryBlobs(tmp_path / "blobs")
    blobs.create()
    return blobs


def place(root: Path, digest: Digest = DIGEST) -> Path:
    return root / "blobs" / "sha256" / digest.hex[:2] / digest.hex


def files(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file()}


# The behaviour of every store.


def test_bytes_come_back(blobs: BlobStore) -> None:
    assert blobs.put(DATA) == DIGEST
    assert blobs.put(b"") == Digest.of(b"")
    assert blobs.get(DIGEST, len(DATA)) == DATA
    assert blobs.get(Digest.of(b""), 0) == b""


def test_the_same_bytes_again_are_fine(blobs: BlobStore) -> None:
    assert {blobs.put(DATA) for _ in range(3)} == {DIGEST}
    assert [blob.digest for blob in blobs.stored()] == [DIGEST]


def test_what_is_not_there_is_named(blobs: BlobStore) -> None:
    assert blobs.find(DIGEST) is None
    assert list(blobs.stored()) == []
    with pytest.raises(NotFound) as caught:
        blobs.get(DIGEST, 10)
    assert caught.value.code == "registry.blob_missing"
    assert str(DIGEST) in str(caught.value)


def test_the_store_tells_size_and_time(blobs: BlobStore) -> None:
    blobs.put(DATA)
    found = blobs.find(DIGEST)
    assert found is not None
    assert found.size == len(DATA)
    assert abs(datetime.now(UTC) - found.modified) < timedelta(minutes=1)
    assert [(blob.digest, blob.size) for blob in blobs.stored()] == [(DIGEST, len(DATA))]


def test_every_blob_is_listed_once(blobs: BlobStore) -> None:
    digests = {blobs.put(bytes([i])) for i in range(40)}
    listed = [blob.digest for blob in blobs.stored()]
    assert len(listed) == 40
    assert set(listed) == digests


def test_a_deleted_blob_is_gone(blobs: BlobStore) -> None:
    blobs.put(DATA)
    assert blobs.delete(DIGEST) is True
    assert blobs.delete(DIGEST) is False
    assert blobs.find(DIGEST) is None
    assert blobs.put(DATA) == DIGEST
    assert blobs.get(DIGEST, len(DATA)) == DATA


def test_more_than_expected_is_not_read(blobs: BlobStore) -> None:
    blobs.put(DATA)
    with pytest.raises(RegistryError) as caught:
        blobs.get(DIGEST, len(DATA) - 1)
    assert caught.value.code == "registry.blob_damaged"


def test_many_writers_of_the_same_bytes_all_succeed(blobs: BlobStore) -> None:
    done: list[Digest] = []
    threads = [threading.Thread(target=lambda: done.append(blobs.put(DATA))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [DIGEST] * 8
    assert blobs.get(DIGEST, len(DATA)) == DATA
    assert blobs.sweep(datetime.now(UTC) + timedelta(days=1)) == 0


# A directory.


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_any_bytes_come_back(directory: DirectoryBlobs, many: list[bytes]) -> None:
    for data in many:
        directory.put(data)
    for data in many:
        assert directory.get(Digest.of(data), 200) == data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.integers(0, len(DATA) - 1), st.integers(0, 7))
def test_any_flipped_bit_is_noticed(
    directory: DirectoryBlobs, tmp_path: Path, at: int, bit: int
) -> None:
    directory.put(DATA)
    path = place(tmp_path)
    changed = bytearray(DATA)
    changed[at] ^= 1 << bit
    path.chmod(0o644)
    path.write_bytes(changed)
    for again in (lambda: directory.get(DIGEST, len(DATA)), lambda: directory.put(DATA)):
        with pytest.raises(RegistryError) as caught:
            again()
        assert caught.value.code == "registry.blob_damaged"
        assert "fsck" in str(caught.value)
    assert path.read_bytes() == changed  # it is evidence, and never written over
    path.unlink()


@pytest.mark.parametrize("cut", [0, 1, len(DATA) // 2, len(DATA) - 1])
def test_a_blob_that_was_cut_short_is_noticed(
    directory: DirectoryBlobs, tmp_path: Path, cut: int
) -> None:
    directory.put(DATA)
    os.truncate(place(tmp_path), cut)
    with pytest.raises(RegistryError) as caught:
        directory.get(DIGEST, len(DATA))
    assert caught.value.code == "registry.blob_damaged"


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "socket"])
def test_only_regular_files_are_blobs(
    directory: DirectoryBlobs, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place(tmp_path)
    path.parent.mkdir()
    (tmp_path / "elsewhere").write_bytes(DATA)
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        monkeypatch.chdir(path.parent)  # a socket's path must be short
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    with pytest.raises(RegistryError) as caught:
        directory.get(DIGEST, len(DATA))
    assert caught.value.code == "registry.blob_damaged"


def test_a_blob_cannot_be_written_to(directory: DirectoryBlobs, tmp_path: Path) -> None:
    directory.put(DATA)
    assert place(tmp_path).stat().st_mode & 0o777 == 0o444


def test_what_else_lies_in_the_directory_is_no_blob(
    directory: DirectoryBlobs, tmp_path: Path
) -> None:
    shard = tmp_path / "blobs" / "sha256" / "ab"
    shard.mkdir()
    for name in ("notes.txt", "ab" * 31, "AB" * 32, "ab" * 32 + ".tmp", "ab" * 33):
        (shard / name).write_text("stranger")
    (tmp_path / "blobs" / "sha256" / "other").mkdir()
    assert list(directory.stored()) == []


def test_a_blob_that_is_put_again_is_young_again(directory: DirectoryBlobs, tmp_path: Path) -> None:
    directory.put(DATA)
    os.utime(place(tmp_path), (0, 0))
    directory.put(DATA)
    found = directory.find(DIGEST)
    assert found is not None
    assert datetime.now(UTC) - found.modified < timedelta(minutes=1)


def test_a_directory_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    # An unmounted disk must not turn into an empty store on the disk below.
    blobs = DirectoryBlobs(tmp_path / "blobs")
    with pytest.raises(StorageError):
        blobs.put(DATA)
    assert not (tmp_path / "blobs").exists()
    assert list(blobs.stored()) == []
    assert blobs.sweep(datetime.now(UTC)) == 0


def test_a_file_system_without_links_is_enough(
    directory: DirectoryBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    directory.put(DATA)
    directory.put(DATA)
    assert directory.get(DIGEST, len(DATA)) == DATA
    assert files(tmp_path) == {DIGEST.hex}


def test_a_kill_leaves_whole_blobs_and_sweepable_drafts(
    directory: DirectoryBlobs, tmp_path: Path
) -> None:
    script = (
        "import itertools, sys; from foreword.registry.directory import DirectoryBlobs\n"
        "blobs = DirectoryBlobs(sys.argv[1])\n"
        "for i in itertools.count(): print(blobs.put(str(i).encode() * 50_000), flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "blobs")],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    acknowledged = [Digest.parse(process.stdout.readline().strip()) for _ in range(15)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    for blob in directory.stored():
        directory.get(blob.digest, blob.size)
    assert set(acknowledged) <= {blob.digest for blob in directory.stored()}
    directory.sweep(datetime.now(UTC) + timedelta(days=1))
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


def test_only_old_drafts_are_swept(directory: DirectoryBlobs, tmp_path: Path) -> None:
    for name, age in (("old.blob", 100), ("young.blob", 0)):
        path = tmp_path / "blobs" / "incoming" / name
        path.write_bytes(b"half")
        os.utime(path, times=(time.time() - age,) * 2)
    assert directory.sweep(datetime.now(UTC) - timedelta(seconds=50)) == 1
    assert files(tmp_path) == {"young.blob"}


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount")
def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "blobs"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        blobs = DirectoryBlobs(disk)
        blobs.create()
        blobs.put(b"small")
        with pytest.raises(StorageError) as caught:
            blobs.put(bytes(100_000))
        assert caught.value.code == "storage.full"
        assert files(disk) == {Digest.of(b"small").hex}
        assert blobs.put(DATA) == DIGEST
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# An object store.


def test_an_object_that_was_changed_is_noticed() -> None:
    store = MemoryStore()
    blobs = ObjectBlobs(store, "memory")
    blobs.put(DATA)
    key = f"sha256/{DIGEST.hex[:2]}/{DIGEST.hex}"
    obstore.put(store, key, DATA[:-1] + b"!")
    for again in (lambda: blobs.get(DIGEST, len(DATA)), lambda: blobs.put(DATA)):
        with pytest.raises(RegistryError) as caught:
            again()
        assert caught.value.code == "registry.blob_damaged"
    assert bytes(obstore.get(store, key).bytes()) == DATA[:-1] + b"!"


def test_an_endless_object_is_not_read_to_its_end() -> None:
    store = MemoryStore()
    blobs = ObjectBlobs(store, "memory")
    obstore.put(store, f"sha256/{DIGEST.hex[:2]}/{DIGEST.hex}", bytes(30 << 20))
    with pytest.raises(RegistryError, match="more than 100 bytes"):
        blobs.get(DIGEST, 100)


def test_strange_keys_are_no_blobs() -> None:
    store = MemoryStore()
    for key in ("sha256/ab/notes", f"sha256/00/{DIGEST.hex}", f"other/{DIGEST.hex}", "sha256/x"):
        obstore.put(store, key, b"stranger")
    assert list(ObjectBlobs(store, "memory").stored()) == []


def test_a_store_that_does_not_answer_is_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    blobs = open_blobs("s3://bucket/prefix")
    for ask in (
        lambda: blobs.put(DATA),
        lambda: blobs.get(DIGEST, 10),
        lambda: blobs.find(DIGEST),
        lambda: list(blobs.stored()),
        lambda: blobs.delete(DIGEST),
    ):
        with pytest.raises(StorageError) as caught:
            ask()
        assert caught.value.code == "storage.remote"
        assert "s3://bucket/prefix" in str(caught.value)
        assert len(str(caught.value)) < 500
        assert "hunter2" not in str(caught.value)


def test_wrong_credentials_are_a_storage_error(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    with pytest.raises(StorageError) as caught:
        open_blobs(s3_url).put(DATA)
    assert caught.value.code == "storage.remote"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://host/x", "https://host/x", "ftp://x", "file://host/x", "file:", "s3:", "s3://",
        "s3://user:hunter2@bucket/x", "s3://bucket/x?secret=hunter2", "memory://", "simplecache::s3://b",
    ],
)  # fmt: skip
def test_only_known_places_are_opened(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_blobs(url)
    assert caught.value.code == "registry.blobs"
    assert "hunter2" not in str(caught.value)


def test_a_place_that_cannot_be_used_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="Account must be specified"):
        open_blobs("az://container/prefix")


def test_a_path_is_a_directory(tmp_path: Path) -> None:
    for url in (str(tmp_path / "b"), f"file://{tmp_path}/b"):
        assert open_blobs(url).shown == str(tmp_path / "b")
