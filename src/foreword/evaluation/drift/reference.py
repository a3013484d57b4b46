"""The reference window on disk: frozen once per version, named by the digest of its bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from foreword.artifact import Digest
from foreword.artifact.disk import not_written, read_bounded, sync_directory, write_synced
from foreword.errors import ArtifactError, NotFound, UsageError
from foreword.evaluation.drift.observations import Observation
from foreword.evaluation.drift.window import MAX_BYTES, Encoder, Window, make_window


@dataclass(frozen=True)
class Reference:
    """A frozen window and its bytes."""

    window: Window = field(compare=False)
    data: bytes

    @property
    def digest(self) -> Digest:
        """Of the window's bytes; the prefix's is `window.digest`."""
        return Digest.of(self.data)

    @classmethod
    def of(cls, data: bytes) -> Reference:
        return cls(Window.from_bytes(data), data)


def freeze_reference(
    directory: Path,
    digest: Digest,
    observations: Sequence[Observation],
    encoder: Encoder,
    now: datetime,
) -> Reference:
    """Freeze the reference window of the version `digest`: `directory/<hex of digest>.window`.

    Raises:
        UsageError: it is frozen already (`drift.frozen`), or there are no rows (`drift.rows`).
        StorageError: the disk refused; nothing was left behind.
    """
    path = _path(directory, digest)
    if path.exists():
        raise UsageError(
            f"the reference of {digest.short} is frozen already in {path}; a reference that moves would "
            "hide a slow drift. Release a new version to have a new one",
            code="drift.frozen",
        )
    reference = Reference.of(make_window(digest, observations, encoder, now).to_bytes())
    try:
        _write(path, reference.data)
    except OSError as e:
        raise not_written(path, e) from e
    return reference


def load_reference(directory: Path, digest: Digest) -> Reference:
    """
    Raises:
        NotFound: none was frozen for this version (`drift.no_reference`).
        ArtifactError: it is of another version, or damaged.
        StorageError: it cannot be read.
    """
    path = _path(directory, digest)
    if not path.exists():
        raise NotFound(
            f"no reference window was frozen for {digest.short} in {directory}; freeze one from the rows "
            "of its release",
            code="drift.no_reference",
        )
    reference = Reference.of(read_bounded(path, MAX_BYTES))
    if reference.window.digest != digest:
        raise ArtifactError(
            f"{path} is the reference of {reference.window.digest.short}, not of {digest.short}; put back "
            "the one that was frozen",
            code="window.other_version",
        )
    return reference


def _path(directory: Path, digest: Digest) -> Path:
    return directory / f"{digest.hex}.window"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
    os.close(handle)
    try:
        write_synced(Path(draft), data)
        os.link(draft, path)  # fails if another froze it meanwhile; a rename would replace it
        sync_directory(path.parent)
    finally:
        os.unlink(draft)
