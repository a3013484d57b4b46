"""Where prefixes are kept that are not on the device: host memory and a local disk.

A copy on disk is trusted no more than one from afar: whenever it is read, its bytes are hashed and
judged again by the policy of that moment, and a copy that does not pass is deleted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from foreword.artifact import Digest, Manifest
from foreword.artifact.disk import not_written, sync_directory, write_synced
from foreword.artifact.package import ENVELOPES, MANIFEST, TENSORS
from foreword.errors import ArtifactError, ConfigError, StorageError, TrustError
from foreword.prefix.kv import PrefixKV
from foreword.signing.verify import VerifiedArtifact

Value = TypeVar("Value")
_SHARD = re.compile(r"[0-9a-f]{2}")
_HEX = re.compile(r"[0-9a-f]{64}")


class RecentlyUsed(Generic[Value]):
    """Values by digest within a budget of bytes; the least recently used goes first."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.nbytes = 0
        self._values: OrderedDict[Digest, tuple[int, Value]] = OrderedDict()

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._values

    def __len__(self) -> int:
        return len(self._values)

    def get(self, digest: Digest) -> Value | None:
        if digest not in self._values:
            return None
        self._values.move_to_end(digest)
        return self._values[digest][1]

    def put(self, digest: Digest, nbytes: int, value: Value) -> list[Digest]:
        """Keep a value; gives what had to go for it, itself if it is larger than the budget."""
        self.remove(digest)
        self._values[digest] = nbytes, value
        self.nbytes += nbytes
        gone = []
        while self.nbytes > self.budget:
            gone.append(next(iter(self._values)))
            self.remove(gone[-1])
        return gone

    def remove(self, digest: Digest) -> bool:
        """Drop a value; False if it is not there."""
        entry = self._values.pop(digest, None)
        self.nbytes -= entry[0] if entry else 0
        return entry is not None


@dataclass(frozen=True)
class HostCopy:
    """A prefix in the host's memory, made of bytes that were verified in this process."""

    manifest: Manifest
    kv: PrefixKV
    """On the CPU."""


HostTier = RecentlyUsed[HostCopy]


class DiskTier:
    """Artifacts with their envelopes under `directory/<aa>/<hex>`, as `foreword verify` reads them.

    `reverify` reads a directory and judges it (`signing.store.open_verified` with the policy of now).
    The directory belongs to one process. Safe to call from several threads.

    Raises:
        ConfigError: the budget is below zero.
        StorageError: the directory cannot be made or read.
    """

    def __init__(
        self, directory: Path, budget: int, reverify: Callable[[Path], VerifiedArtifact]
    ) -> None:
        if budget < 0:
            raise ConfigError(
                f"the disk tier needs a budget of 0 bytes or more, got {budget}",
                code="config.value",
            )
        self._directory, self._reverify = directory, reverify
        self._lock = threading.Lock()
        self._index: RecentlyUsed[None] = RecentlyUsed(budget)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            left = list(_left_behind(directory))
        except OSError as e:
            raise StorageError(
                f"{directory} cannot be used for prefixes ({e.strerror})", code="storage.read"
            ) from e
        for _, digest, size in sorted(left):
            self._delete(self._index.put(digest, size, None))

    def __contains__(self, digest: Digest) -> bool:
        with self._lock:
            return digest in self._index

    @property
    def nbytes(self) -> int:
        return self._index.nbytes

    def get(self, digest: Digest) -> VerifiedArtifact | None:
        """A copy that was judged again just now; None if there is none that passes.

        Raises:
            StorageError: the disk refused, or the trust policy could not be read; the copy stays.
            TrustError: the policy itself is no good (`trust.policy*`); it says nothing of the copy.
        """
        with self._lock:
            if digest not in self._index:
                return None
        path = self._path(digest)
        try:
            found = self._reverify(path)
        except (ArtifactError, TrustError) as e:
            if e.code.startswith("trust.policy"):
                raise
            self.drop(digest)
            return None
        if found.digest != digest:
            self.drop(digest)
            return None
        with self._lock:
            self._index.get(digest)
        with contextlib.suppress(OSError):  # only the order after a restart depends on it
            os.utime(path)
        return found

    def put(self, verified: VerifiedArtifact) -> None:
        """Keep a copy; it appears whole or not at all.

        Raises:
            StorageError: the disk refused; nothing was left behind.
        """
        artifact, digest = verified.artifact, verified.digest
        files = {
            MANIFEST: artifact.manifest_bytes,
            TENSORS: artifact.tensor_bytes,
            ENVELOPES: b"".join(line + b"\n" for line in verified.envelopes),
        }
        size = sum(map(len, files.values()))
        if size > self._index.budget or digest in self:
            return
        self._write(self._path(digest), files)
        with self._lock:
            gone = self._index.put(digest, size, None)
        self._delete(gone)

    def drop(self, digest: Digest) -> bool:
        """Delete a copy; False if there is none."""
        with self._lock:
            there = self._index.remove(digest)
        self._delete([digest])
        return there

    def _path(self, digest: Digest) -> Path:
        # A Digest holds 64 hexadecimal digits and nothing else; no other text becomes a path.
        return self._directory / digest.hex[:2] / digest.hex

    def _write(self, target: Path, files: dict[str, bytes]) -> None:
        draft: Path | None = None
        try:
            target.parent.mkdir(exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
            for name, data in files.items():
                write_synced(draft / name, data)
            sync_directory(draft)
            shutil.rmtree(target, ignore_errors=True)  # a copy that was dropped but not deleted
            os.rename(draft, target)
            sync_directory(target.parent)
        except OSError as e:
            raise not_written(target, e) from e
        finally:
            if draft is not None:
                shutil.rmtree(draft, ignore_errors=True)

    def _delete(self, digests: list[Digest]) -> None:
        # One that is cut short leaves a copy that no reader accepts, so nobody has to wait for it.
        for digest in digests:
            shutil.rmtree(self._path(digest), ignore_errors=True)


def _left_behind(directory: Path) -> Iterator[tuple[float, Digest, int]]:
    """When each copy was last used, its digest and bytes; drafts of a run that was cut short go."""
    for shard in directory.iterdir():
        if not _SHARD.fullmatch(shard.name) or not shard.is_dir():
            continue
        for entry in shard.iterdir():
            if entry.name.startswith("."):
                shutil.rmtree(entry, ignore_errors=True)
            elif _HEX.fullmatch(entry.name) and entry.is_dir():
                size = sum(file.stat().st_size for file in entry.iterdir())
                yield entry.stat().st_mtime, Digest(entry.name), size
