"""The blobs: all that is needed is there and whole, and nothing else lies among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from foreword.artifact import Digest
from foreword.artifact.canonical import MAX_BYTES as MAX_MANIFEST
from foreword.errors import ForewordError, NotFound, RegistryError
from foreword.registry.blobs import BlobStore, StoredBlob
from foreword.registry.fsck.finding import Finding, broken, doubtful, leftover
from foreword.registry.gc import LEAST_GRACE, condemned, needed_by
from foreword.registry.registry import MAX_WINDOW
from foreword.registry.state import State, Version
from foreword.signing.envelope import MAX_BYTES as MAX_ENVELOPE

_COLLECT = "`foreword registry gc --apply` takes it once it is old enough"
_BRING_BACK = "`foreword registry gc --apply` brings it back"
_MOVE = "find out what it is and move it away"


@dataclass
class Look:
    """A walk over the blobs of versions, and what was met on it."""

    store: BlobStore
    deep: bool
    """Read and hash every byte; else only see that it is there, with the right size."""
    read: int = 0
    size: int = 0
    lacking: list[tuple[Digest, Finding]] = field(default_factory=list)

    def at(self, version: Version) -> dict[Digest, bytes] | None:
        """The blobs a version needs; None if one is lacking, or nothing is read."""
        found = {digest: self._blob(version, digest) for digest in needed_by(version)}
        if self.deep and all(data is not None for data in found.values()):
            return {digest: data for digest, data in found.items() if data is not None}
        return None

    def _blob(self, version: Version, digest: Digest) -> bytes | None:
        most = _most(version, digest)
        try:
            if not self.deep:
                self._see(version, digest, most)
                return None
            data = self.store.get(digest, most)
        except ForewordError as e:
            self.lacking.append((digest, self._lack(version, digest, most, e)))
            return None
        self.read += 1
        self.size += len(data)
        return data

    def _see(self, version: Version, digest: Digest, most: int) -> None:
        found = self.store.find(digest)
        if found is None:
            raise NotFound(f"blob {digest} is not in {self.store.shown}")
        is_exact = digest == version.facts.tensors.sha256
        if found.size > most or (is_exact and found.size < most):
            raise RegistryError(f"blob {digest} has {found.size} bytes instead of {most}")
        self.read += 1

    def _lack(self, version: Version, digest: Digest, most: int, error: ForewordError) -> Finding:
        where = f"{version.name}@{version.version} ({_role(version, digest)} {digest})"
        what, mend = str(error).partition("; ")[0], _mend(version, digest)
        if isinstance(error, NotFound):
            if _has(condemned(self.store), digest, most):
                return broken(
                    "blob_condemned", where, "it is needed and was collected", _BRING_BACK
                )
            return broken("blob_missing", where, what, mend)
        if isinstance(error, RegistryError):
            return broken("blob_damaged", where, what, f"move the damaged one away, then {mend}")
        return broken("blob_unreadable", where, str(error), "see that the store may be read")


def orphans(state: State, listed: Iterable[StoredBlob], now: datetime) -> Iterator[Finding]:
    """Blobs no entry speaks of; those that a publish may be about to need are left out."""
    known = {digest for version in state.versions.values() for digest in version.blobs}
    for blob in listed:
        if blob.digest not in known and now - blob.modified >= LEAST_GRACE:
            what = f"no version ever had its {blob.size} bytes"
            yield leftover("orphan", str(blob.digest), what, _COLLECT)


def strays(store: BlobStore, now: datetime) -> Iterator[Finding]:
    """What is no blob."""
    for stray in store.strays():
        where = ascii(stray.where)[1:-1]  # a name from outside must not steer a terminal
        if stray.what == "draft":
            if now - stray.modified >= LEAST_GRACE:
                yield leftover("draft", where, "a write was cut short", _COLLECT)
        elif stray.what == "mode":
            yield doubtful("mode", where, "others than its owner may write to it", "chmod 444 it")
        elif stray.what == "kind":
            yield doubtful(
                "stranger", where, "it has the name of a blob and is no regular file", _MOVE
            )
        else:
            yield doubtful("stranger", where, "no blob has this name in this place", _MOVE)


def _most(version: Version, digest: Digest) -> int:
    if digest == version.digest:
        return MAX_MANIFEST
    if digest in version.windows:
        return MAX_WINDOW
    return version.facts.tensors.size if digest == version.facts.tensors.sha256 else MAX_ENVELOPE


def _role(version: Version, digest: Digest) -> str:
    if digest == version.digest:
        return "manifest"
    if digest in version.windows:
        return "drift window"
    return "tensors" if digest == version.facts.tensors.sha256 else "envelope"


def _mend(version: Version, digest: Digest) -> str:
    backup = "copy the blob from a backup"
    if version.status != "live":
        return backup  # what was revoked is taken by no command
    if _role(version, digest) == "drift window":
        return f"record the same drift again, or {backup}"
    if _role(version, digest) == "envelope":
        return f"publish or attest the same envelope again, or {backup}"
    return f"publish the same artifact again, or {backup}"


def _has(store: BlobStore, digest: Digest, most: int) -> bool:
    try:
        store.get(digest, most)
    except ForewordError:
        return False
    return True
