"""An artifact: a manifest and its tensor file, packed, written and opened as one thing.

Bytes are read once; what is hashed is what is parsed and what is used.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.artifact import tensors as tensor_file
from foreword.artifact.canonical import MAX_BYTES
from foreword.artifact.digest import Digest
from foreword.artifact.disk import not_written, read_bounded, sync_directory, write_synced
from foreword.artifact.geometry import Geometry
from foreword.artifact.manifest import (
    BaseRef,
    Dtype,
    Manifest,
    Probe,
    PromptFormat,
    TensorFile,
)
from foreword.errors import ArtifactError, StorageError

MANIFEST = "manifest.json"
TENSORS = "prefix.safetensors"
ENVELOPES = "envelopes.jsonl"
"""Signatures over the digest (`signing/`); the digest does not cover them, and nothing here reads them."""
COMPANIONS = frozenset({"report.html", "training.jsonl", "README.md"})
"""Files that may lie beside an artifact. They are for people; nothing is read from them."""


@dataclass(frozen=True)
class Artifact:
    """A prefix version at rest: bytes that were checked against each other."""

    manifest: Manifest
    manifest_bytes: bytes
    tensor_bytes: bytes

    @property
    def digest(self) -> Digest:
        """The version's name: sha256 of the canonical manifest, which lists the tensors' sha256."""
        return Digest.of(self.manifest_bytes)

    def tensors(self) -> Mapping[str, memoryview]:
        """Each tensor's bytes by name (`decoder.0.key`), little-endian, `[kv_head, token, dim]`."""
        return tensor_file.parse(self.tensor_bytes, _specs(self.manifest))


def pack(
    *,
    name: str,
    version: str,
    created: str,
    base: BaseRef,
    geometry: Geometry,
    length: int,
    dtype: Dtype,
    prompt: PromptFormat,
    training: Mapping[str, Any],
    probes: tuple[Probe, ...],
    tensors: Mapping[str, bytes],
) -> Artifact:
    """Put facts and numbers together; the result has passed every check a reader makes."""
    specs = tensor_file.expected_tensors(geometry, length, dtype)
    data = tensor_file.serialize(tensors, specs)
    manifest = Manifest(
        name=name,
        version=version,
        created=created,
        base=base,
        geometry=geometry,
        length=length,
        dtype=dtype,
        prompt=prompt,
        tensors=TensorFile(Digest.of(data), len(data)),
        training=training,
        probes=probes,
    )
    return from_bytes(manifest.to_bytes(), data)


def from_bytes(manifest_bytes: bytes, tensor_bytes: bytes) -> Artifact:
    """Check a manifest and a tensor file against each other.

    Raises:
        ArtifactError: something is malformed, or the two do not belong together.
    """
    return from_hashed(manifest_bytes, tensor_bytes, Digest.of(tensor_bytes))


def from_hashed(manifest_bytes: bytes, tensor_bytes: bytes, found: Digest) -> Artifact:
    """As `from_bytes`, for who has hashed these very tensors: at 5 MB that is most of the time."""
    manifest = Manifest.from_bytes(manifest_bytes)
    if len(tensor_bytes) != manifest.tensors.size:
        kind = "truncated" if len(tensor_bytes) < manifest.tensors.size else "trailing"
        raise ArtifactError(
            f"{TENSORS} should have {manifest.tensors.size} bytes, it has {len(tensor_bytes)}; get "
            "another copy",
            code=f"artifact.{kind}",
        )
    if found != manifest.tensors.sha256:
        raise ArtifactError(
            f"{TENSORS} has sha256 {found.short}..., the manifest says "
            f"{manifest.tensors.sha256.short}...; the file was changed, get another copy",
            code="artifact.digest",
        )
    tensor_file.parse(tensor_bytes, _specs(manifest))
    return Artifact(manifest, manifest_bytes, tensor_bytes)


def open_artifact(directory: str | Path) -> Artifact:
    """Read an artifact, each file once, and check all of it.

    Raises:
        ArtifactError: missing, malformed, damaged, or with files that do not belong there.
        StorageError: the disk refused.
    """
    return from_bytes(*read_files(directory))


def read_files(directory: str | Path) -> tuple[bytes, bytes]:
    """Manifest and tensor file of a directory, each read once; nothing is parsed from the tensors.

    Raises:
        ArtifactError: missing, with files that do not belong there, or without a readable manifest.
        StorageError: the disk refused.
    """
    directory = Path(directory)
    try:
        there = directory.is_dir()
        strangers = _strangers(directory) if there else set()
    except OSError as e:
        raise StorageError(f"{directory} cannot be read ({e.strerror})", code="storage.read") from e
    if not there:
        raise ArtifactError(
            f"there is no artifact at {directory}; expected a directory with {MANIFEST} and {TENSORS}",
            code="artifact.missing",
        )
    if strangers:
        raise ArtifactError(
            f"{directory} holds {min(strangers)!r}, which does not belong to an artifact; move it away",
            code="artifact.extra_file",
        )
    manifest_bytes = read_bounded(directory / MANIFEST, MAX_BYTES)
    declared = Manifest.from_bytes(manifest_bytes).tensors.size
    return manifest_bytes, read_bounded(directory / TENSORS, declared)


def write_artifact(
    artifact: Artifact,
    directory: str | Path,
    *,
    companions: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an artifact; the directory appears whole or not at all.

    `companions` are files for people that lie beside it (`COMPANIONS`). With `overwrite`, what was
    there before stays until the new one is on disk; only a directory with nothing but an artifact's
    files is ever replaced.

    Raises:
        StorageError: the directory exists, or the disk refused; nothing was written.
        ValueError: a companion has a name that readers refuse.
    """
    target = Path(directory)
    if wrong := set(companions or {}) - COMPANIONS:
        raise ValueError(f"{min(wrong)!r} may not lie beside an artifact")
    files = {MANIFEST: artifact.manifest_bytes, TENSORS: artifact.tensor_bytes}
    draft: Path | None = None
    try:
        if os.path.lexists(target) and not (overwrite and _is_ours(target)):
            raise StorageError(
                f"{target} exists already"
                + (" and is not an artifact" if overwrite else "")
                + "; choose another directory or move it away",
                code="storage.exists",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        for name, data in {**(companions or {}), **files}.items():
            write_synced(draft / name, data)
        draft.chmod(0o755)
        sync_directory(draft)
        _swap(draft, target)
        sync_directory(target.parent)
    except OSError as e:
        raise not_written(target, e) from e
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
    return target


def _specs(manifest: Manifest) -> tuple[tensor_file.TensorSpec, ...]:
    return tensor_file.expected_tensors(manifest.geometry, manifest.length, manifest.dtype)


def _strangers(directory: Path) -> set[str]:
    """Names in a directory that no artifact has."""
    return (
        {entry.name for entry in directory.iterdir()} - {MANIFEST, TENSORS, ENVELOPES} - COMPANIONS
    )


def _is_ours(target: Path) -> bool:
    """True for a directory that holds nothing else, so that replacing it loses nothing else."""
    return target.is_dir() and not target.is_symlink() and not _strangers(target)


def _swap(draft: Path, target: Path) -> None:
    """Rename `draft` to `target`; an old directory is moved aside first and back on failure."""
    if not target.exists():
        os.rename(draft, target)
        return
    old = draft.with_name(f"{draft.name}.old")
    os.rename(target, old)
    try:
        os.rename(draft, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
