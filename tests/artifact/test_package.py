"""An artifact is whole or absent, and what was hashed is what is used."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from foreword.artifact import open_artifact, write_artifact
from foreword.artifact.canonical import encode
from foreword.artifact.package import from_bytes
from foreword.errors import ArtifactError, StorageError
from tests.artifact.samples import sample

ROOT = Path(__file__).parents[2]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_artifact(sample(), tmp_path / "made", companions={"report.html": b"<p>"})


def test_an_artifact_survives_a_round_trip(written: Path) -> None:
    artifact = open_artifact(written)
    assert artifact == sample()
    assert artifact.digest == sample().digest
    assert {n: bytes(v) for n, v in artifact.tensors().items()} == {
        n: bytes(v) for n, v in sample().tensors().items()
    }


def test_the_digest_covers_facts_and_numbers() -> None:
    digests = {
        sample().digest,
        sample(version="1.2.4").digest,
        sample(training={}).digest,
        sample(tensors={n: bytes(len(v)) for n, v in sample().tensors().items()}).digest,
    }
    assert len(digests) == 4


def test_what_exists_is_not_overwritten_unless_asked(written: Path) -> None:
    with pytest.raises(StorageError, match="exists already"):
        write_artifact(sample(), written)
    newer = sample(version="2.0.0")
    write_artifact(newer, written, overwrite=True)
    assert open_artifact(written).digest == newer.digest
    assert [p.name for p in written.parent.iterdir()] == ["made"]


def test_every_changed_bit_is_noticed() -> None:
    good = sample()
    for place in range(len(good.manifest_bytes)):
        for bit in (0, 3, 7):
            changed = bytearray(good.manifest_bytes)
            changed[place] ^= 1 << bit
            try:
                other = from_bytes(bytes(changed), good.tensor_bytes)
            except ArtifactError:
                continue
            assert other.digest != good.digest
    for place in range(len(good.tensor_bytes)):
        changed = bytearray(good.tensor_bytes)
        changed[place] ^= 1 << place % 8
        with pytest.raises(ArtifactError) as caught:
            from_bytes(good.manifest_bytes, bytes(changed))
        assert caught.value.code == "artifact.digest"


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("prefix.safetensors", lambda d: d[:-5], "artifact.truncated"),
        ("prefix.safetensors", lambda d: d + b"\0", "artifact.trailing"),
        ("prefix.safetensors", lambda d: d[:-1] + b"\x7f", "artifact.digest"),
        ("manifest.json", lambda d: d[:-1], "json.syntax"),
        ("manifest.json", lambda d: b" " * (2 << 20), "artifact.trailing"),
        ("prefix.pt", lambda d: b"pickle", "artifact.extra_file"),
    ],
)
def test_damage_is_named(written: Path, name: str, data: object, code: str) -> None:
    path = written / name
    before = path.read_bytes() if path.exists() else b""
    path.write_bytes(data(before))  # type: ignore[operator]
    with pytest.raises(ArtifactError) as caught:
        open_artifact(written)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["manifest.json", "prefix.safetensors"])
def test_only_regular_files_are_read(written: Path, name: str) -> None:
    real = written / name
    aside = written.parent / "aside"
    real.rename(aside)
    with pytest.raises(ArtifactError, match="missing"):
        open_artifact(written)
    real.symlink_to(aside)
    with pytest.raises(ArtifactError) as caught:
        open_artifact(written)
    assert caught.value.code == "artifact.link"
    real.unlink()
    os.mkfifo(real)
    with pytest.raises(ArtifactError) as caught:
        open_artifact(written)
    assert caught.value.code == "artifact.not_a_file"
    real.unlink()
    real.mkdir()
    with pytest.raises(ArtifactError) as caught:
        open_artifact(written)
    assert caught.value.code == "artifact.not_a_file"


def test_a_socket_is_not_read(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (written / "manifest.json").unlink()
    monkeypatch.chdir(written)  # a socket's path must be short
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind("manifest.json")
        with pytest.raises(ArtifactError) as caught:
            open_artifact(written)
    assert caught.value.code == "artifact.not_a_file"


def test_what_the_system_refuses_is_a_storage_error() -> None:
    with pytest.raises(StorageError) as caught:
        open_artifact("x" * 5000)
    assert caught.value.code == "storage.read"


def test_overwriting_never_takes_what_is_no_artifact(written: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").write_text("mine")
    (tmp_path / "current").symlink_to(written)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    before = sorted(tmp_path.rglob("*"))
    for name in ("notes", "home", "current", "dangling"):
        with pytest.raises(StorageError) as caught:
            write_artifact(sample(version="2.0.0"), tmp_path / name, overwrite=True)
        assert caught.value.code == "storage.exists"
    assert sorted(tmp_path.rglob("*")) == before
    assert open_artifact(written).digest == sample().digest


@pytest.mark.parametrize("name", ["../evil", "notes.txt", "manifest.json"])
def test_a_companion_is_one_that_readers_allow(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="may not lie beside"):
        write_artifact(sample(), tmp_path / "made", companions={name: b"x"})
    assert list(tmp_path.iterdir()) == []


def test_a_claim_of_gigabytes_makes_no_room_for_them(written: Path) -> None:
    # 4 GiB of geometry and size, and a file of a few bytes, read with 1 GiB of address space.
    manifest = json.loads((written / "manifest.json").read_bytes())
    layer = {"layer": 0, "kv_heads": 16, "key_dim": 256, "value_dim": 256}
    manifest |= {"geometry": {"decoder": [layer]}, "length": 65_536, "dtype": "float32"}
    manifest["tensors"]["size"] = 65_536 * 16 * 512 * 4 + 200
    (written / "manifest.json").write_bytes(encode(manifest))
    script = (
        "import resource, sys, numpy\n"
        "import foreword\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try: foreword.open_artifact(sys.argv[1])\n"
        "except foreword.errors.ArtifactError as e: print(e.code)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(written)], capture_output=True, text=True
    )
    assert run.stdout.strip() == "artifact.truncated", run.stderr


def test_there_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no artifact"):
        open_artifact(tmp_path / "nothing")


FULL = (
    "import resource, signal, sys\n"
    "from foreword.artifact import write_artifact\n"
    "from foreword.errors import StorageError\n"
    "from tests.artifact.samples import sample\n"
    "artifact = sample(version=sys.argv[2])\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))\n"
    "try: write_artifact(artifact, sys.argv[1], overwrite=True)\n"
    "except StorageError as e: print(e.code)\n"
)


@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(existing: bool, tmp_path: Path) -> None:
    target = tmp_path / "made"
    if existing:
        write_artifact(sample(), target)
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(target), "2.0.0"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert run.stdout.strip() == "storage.full", run.stderr
    assert [p.name for p in tmp_path.iterdir()] == (["made"] if existing else [])
    if existing:
        assert open_artifact(target).digest == sample().digest


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount")
def test_a_disk_that_is_really_full_says_so(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        write_artifact(sample(), disk / "made")
        filler = (disk / "filler").open("wb", buffering=0)
        with filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"x" * 4096)
        for target, overwrite in ((disk / "made", True), (disk / "other", False)):
            with pytest.raises(StorageError) as caught:
                write_artifact(sample(version="2.0.0"), target, overwrite=overwrite)
            assert caught.value.code == "storage.full"
        assert sorted(p.name for p in disk.iterdir()) == ["filler", "made"]
        assert open_artifact(disk / "made").digest == sample().digest
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_kill_leaves_no_half_artifact(tmp_path: Path) -> None:
    script = (
        "import itertools, sys; from foreword.artifact import write_artifact\n"
        "from tests.artifact.samples import sample\n"
        "artifact = sample()\n"
        "for i in itertools.count(): write_artifact(artifact, f'{sys.argv[1]}/a{i}'); "
        "print(i, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(20):
        last = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert len(whole) > last
    for path in whole:
        assert open_artifact(path).digest == sample().digest


def test_reading_needs_no_torch(written: Path) -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'safetensors', 'peft'): sys.modules[name] = None\n"
        "import foreword\n"
        "artifact = foreword.open_artifact(sys.argv[1])\n"
        "print(artifact.digest, len(artifact.tensors()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(written)], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [str(sample().digest), "6"]
