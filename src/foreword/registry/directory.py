"""Blobs in a local directory.

blobs/sha256/ab/abcd...   a blob under its digest; it appears by a link, whole
blobs/incoming/...        blobs while they are written, and what is left of those that were cut short
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from foreword.artifact import Digest
from foreword.artifact.disk import read_bounded, sync_directory
from foreword.errors import ArtifactError, NotFound, StorageError
from foreword.registry.blobs import StoredBlob, Stray, check, damaged, missing

_SHARD = re.compile(r"[0-9a-f]{2}")
_HEX = re.compile(r"[0-9a-f]{64}")
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class DirectoryBlobs:
    """The blob store for one machine, or a shared file system."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)

    def __repr__(self) -> str:
        return f"DirectoryBlobs({self.shown})"

    @property
    def shown(self) -> str:
        return str(self._root)

    def create(self) -> None:
        """Make the directory if it is not there."""
        with _refusals(self._root, "written"):
            for directory in (self._root / "sha256", self._root / "incoming"):
                make(directory)

    def put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        path = self._path(digest)
        with _refusals(path, "written"):
            try:
                self.get(digest, len(data))
                os.utime(path)  # young again: who puts it is about to need it
            except (NotFound, FileNotFoundError):  # also if it was collected in between
                self._write(path, data)
            # Also if it was there: whoever wrote it may not have come this far yet.
            sync_directory(path.parent)
            sync_directory(path.parent.parent)
        return digest

    def get(self, digest: Digest, most: int) -> bytes:
        try:
            data = read_bounded(self._path(digest), most)
        except ArtifactError as e:
            if e.code == "artifact.missing":
                raise missing(digest, self.shown) from e
            damaged(digest, self.shown, str(e))
        return check(digest, data, self.shown)

    def find(self, digest: Digest) -> StoredBlob | None:
        path = self._path(digest)
        with _refusals(path, "read"):
            try:
                return _stored(digest, path.stat(follow_symlinks=False))
            except FileNotFoundError:
                return None

    def stored(self) -> Iterator[StoredBlob]:
        with _refusals(self._root, "read"):
            for shard, entry, found in self._entries():
                if _wrong(shard, entry, found) in (None, "mode"):
                    yield _stored(Digest(entry.name), found)

    def strays(self) -> Iterator[Stray]:
        with _refusals(self._root, "read"):
            for shard, entry, found in self._entries():
                what = _wrong(shard, entry, found)
                if what:
                    yield Stray(entry.path, what, _when(found))
            for entry, found in _entries(self._root / "incoming"):
                yield Stray(entry.path, "draft", _when(found))

    def beside(self, name: str) -> DirectoryBlobs:
        return DirectoryBlobs(self._root / name)

    def delete(self, digest: Digest) -> bool:
        path = self._path(digest)
        with _refusals(path, "deleted"):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            sync_directory(path.parent)
            return True

    def sweep(self, before: datetime) -> int:
        swept = 0
        with _refusals(self._root, "swept"):
            for entry, found in _entries(self._root / "incoming"):
                if _when(found) < before:
                    Path(entry.path).unlink(missing_ok=True)
                    swept += 1
        return swept

    def _path(self, digest: Digest) -> Path:
        # A Digest holds 64 hexadecimal digits and nothing else; no other text becomes a path.
        return self._root / "sha256" / digest.hex[:2] / digest.hex

    def _entries(self) -> Iterator[tuple[str, os.DirEntry[str], os.stat_result]]:
        """Everything in the shards with the shard's name, and what lies beside them with no name."""
        for shard, found in _entries(self._root / "sha256"):
            if _SHARD.fullmatch(shard.name) and stat.S_ISDIR(found.st_mode):
                yield from ((shard.name, *each) for each in _entries(Path(shard.path)))
            else:
                yield "", shard, found

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(exist_ok=True)
        (self._root / "incoming").mkdir(exist_ok=True)  # a copy of the blobs may lack it
        descriptor, draft = tempfile.mkstemp(dir=self._root / "incoming", suffix=".blob")
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o444)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _appear(draft, path)
        finally:
            with contextlib.suppress(OSError):  # what cannot be removed now is swept later
                os.unlink(draft)


def make(directory: Path) -> None:
    """Make a directory, and those above it, so that they survive a power cut."""
    directory.mkdir(parents=True, exist_ok=True)
    # All the way up: an earlier try may have made any of them and been cut short before it synced.
    for above in directory.absolute().parents:
        with contextlib.suppress(PermissionError):  # it is somebody else's, so it was there before
            sync_directory(above)
        if os.path.ismount(above):
            return


def _appear(draft: str, path: Path) -> None:
    """Give a complete file its name, if nobody else has given it the same bytes by now."""
    try:
        os.link(draft, path, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError as e:
        if e.errno not in _NO_LINKS:
            raise
        os.rename(draft, path)  # a file system without hard links; what it replaces is equal


def _entries(directory: Path) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    try:
        found = os.scandir(directory)
    except FileNotFoundError:
        return
    with found:
        for entry in found:
            with contextlib.suppress(FileNotFoundError):  # deleted while we look
                yield entry, entry.stat(follow_symlinks=False)


def _wrong(
    shard: str, entry: os.DirEntry[str], found: os.stat_result
) -> Literal["name", "kind", "mode"] | None:
    if not _HEX.fullmatch(entry.name) or entry.name[:2] != shard:
        return "name"
    if not stat.S_ISREG(found.st_mode):
        return "kind"
    return "mode" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None


def _stored(digest: Digest, found: os.stat_result) -> StoredBlob:
    return StoredBlob(digest, found.st_size, _when(found))


def _when(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime, UTC)


@contextlib.contextmanager
def _refusals(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise StorageError(
            f"{path} could not be {what} ({e.strerror or e})"
            + ("; free some space and try again" if full else ""),
            code="storage.full" if full else "storage.read" if what == "read" else "storage.write",
        ) from e
