"""Blobs: bytes under the name of their digest, written once, hashed again at every read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NoReturn, Protocol

from foreword.artifact import Digest
from foreword.errors import NotFound, RegistryError


@dataclass(frozen=True)
class StoredBlob:
    """A blob as the store lists it; its bytes were not looked at."""

    digest: Digest
    size: int
    """Bytes."""
    modified: datetime
    """When it was written, or put again, by the store's clock."""


@dataclass(frozen=True)
class Stray:
    """What lies in a store and is no blob as `put` leaves it."""

    where: str
    what: Literal["name", "kind", "mode", "draft"]
    """A name no blob has, something other than a file, a file that others may write to, or a write that
    is under way or was cut short."""
    modified: datetime


class BlobStore(Protocol):
    """Where blobs lie.

    `put` returns when the bytes are there to stay: they survive a crash of the process and of the
    machine. A blob that is there never gets other bytes. `get` gives back the bytes of the digest or an
    error, never other bytes. Every method raises `StorageError` if disk or network refuse.
    """

    @property
    def shown(self) -> str:
        """Where this is, for people; without secrets."""

    def create(self) -> None:
        """Make what has to be there before a `put`; fine if it is there."""

    def put(self, data: bytes) -> Digest:
        """Keep bytes; the same bytes again are fine.

        Raises:
            RegistryError: other bytes lie under their digest (`registry.blob_damaged`).
        """

    def get(self, digest: Digest, most: int) -> bytes:
        """The bytes of a digest, of which at most `most` are read.

        Raises:
            NotFound: there is no such blob (`registry.blob_missing`).
            RegistryError: what lies there has another digest, or is larger (`registry.blob_damaged`).
        """

    def find(self, digest: Digest) -> StoredBlob | None:
        """What the store knows about a blob, None if it is not there."""

    def stored(self) -> Iterator[StoredBlob]:
        """Every blob, in no order."""

    def strays(self) -> Iterator[Stray]:
        """What lies where blobs lie, or are written, and is none; in no order."""

    def beside(self, name: str) -> BlobStore:
        """Another store in the same place, for blobs that are not to be mixed with these.

        It reads as empty before it is made with `create`.
        """

    def delete(self, digest: Digest) -> bool:
        """Remove a blob; False if it was not there."""

    def sweep(self, before: datetime) -> int:
        """Remove what writes that were cut short before that time have left; how many there were."""


def check(digest: Digest, data: bytes, where: str) -> bytes:
    """The same bytes, if they have this digest.

    Raises:
        RegistryError: they have another one (`registry.blob_damaged`).
    """
    found = Digest.of(data)
    if found != digest:
        damaged(digest, where, f"its {len(data)} bytes have the digest {found.short}...")
    return data


def damaged(digest: Digest, where: str, reason: str) -> NoReturn:
    raise RegistryError(
        f"blob {digest} in {where} is damaged ({reason}); `foreword registry fsck` says how to mend it",
        code="registry.blob_damaged",
    )


def missing(digest: Digest, where: str) -> NotFound:
    return NotFound(
        f"blob {digest} is not in {where}; `foreword registry fsck` says how to mend it",
        code="registry.blob_missing",
    )
