"""Blobs in an object store: S3, GCS or Azure through obstore.

    <bucket>/<prefix>/sha256/ab/abcd...   the same layout as in a directory, so one can be copied to the other

Credentials and endpoints come from the usual environment variables (AWS_*, GOOGLE_*, AZURE_*).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore

from foreword.artifact import Digest
from foreword.errors import ArtifactError, ConfigError, StorageError
from foreword.registry.blobs import BlobStore, StoredBlob, Stray, check, damaged, missing
from foreword.registry.directory import DirectoryBlobs

if TYPE_CHECKING:  # names that exist for the type checker only
    from obstore.store import ClientConfig, RetryConfig

_SCHEMES = ("s3", "gs", "az")
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3")
_CHUNK = 1 << 20
_CLIENT: ClientConfig = {
    "connect_timeout": timedelta(seconds=5),
    "timeout": timedelta(seconds=120),  # for one request, however large
}
_READER: ClientConfig = {
    **_CLIENT,
    "connect_timeout": timedelta(seconds=3),
    "read_timeout": timedelta(seconds=3),  # without a byte; a write says nothing until it is done
}
_RETRIES: RetryConfig = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    },
}


class ObjectBlobs:
    """The blob store for many machines."""

    def __init__(self, store: ObjectStore, shown: str, reader: ObjectStore | None = None) -> None:
        """`reader`: the same place by a client that gives up sooner."""
        self._store, self._reader = store, reader or store
        self._shown = shown

    def __repr__(self) -> str:
        return f"ObjectBlobs({self.shown})"

    @property
    def shown(self) -> str:
        return self._shown

    def create(self) -> None:
        """A place in a bucket is there when something is in it."""

    def put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        with self._refusals("write"):
            try:
                obstore.put(self._store, _key(digest), data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                self.get(digest, len(data))
                # The same bytes once more: young again, who puts it is about to need it.
                obstore.put(self._store, _key(digest), data, mode="overwrite", use_multipart=False)
        return digest

    def get(self, digest: Digest, most: int) -> bytes:
        data = bytearray()
        with self._refusals("read"):
            try:
                for chunk in obstore.get(self._reader, _key(digest)).stream(_CHUNK):
                    data += chunk
                    if len(data) > most:
                        damaged(digest, self.shown, f"it has more than {most} bytes")
            except FileNotFoundError as e:
                raise missing(digest, self.shown) from e
        return check(digest, bytes(data), self.shown)

    def find(self, digest: Digest) -> StoredBlob | None:
        with self._refusals("read"):
            try:
                found = obstore.head(self._reader, _key(digest))
            except FileNotFoundError:
                return None
        return StoredBlob(digest, found["size"], found["last_modified"])

    def stored(self) -> Iterator[StoredBlob]:
        with self._refusals("list"):
            for page in obstore.list(self._store, prefix="sha256"):
                for found in page:
                    digest = _digest(found["path"])
                    if digest:
                        yield StoredBlob(digest, found["size"], found["last_modified"])

    def strays(self) -> Iterator[Stray]:
        with self._refusals("list"):
            for page in obstore.list(self._store, prefix="sha256"):
                for found in page:
                    if _digest(found["path"]) is None:
                        where = f"{self.shown}/{found['path']}"
                        yield Stray(where, "name", found["last_modified"])

    def beside(self, name: str) -> BlobStore:
        return open_blobs(f"{self.shown}/{name}")

    def delete(self, digest: Digest) -> bool:
        there = self.find(digest) is not None
        with self._refusals("delete"), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, _key(digest))
        return there

    def sweep(self, before: datetime) -> int:
        return 0  # an object store shows no object before it is whole

    @contextlib.contextmanager
    def _refusals(self, what: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as e:
            raise StorageError(
                f"could not {what} in {self.shown} ({_said(e)}); check network, endpoint and credentials "
                "and try again",
                code="storage.remote",
            ) from e


def open_blobs(url: str) -> BlobStore:
    """The blob store of a URL: a path, `file://`, `s3://`, `gs://` or `az://`. Nothing is opened yet.

    Raises:
        ConfigError: another form, or one with a password in it (`registry.blobs`).
    """
    parts = urlsplit(url)
    if not parts.scheme:
        return DirectoryBlobs(url)
    if parts.scheme == "file" and not parts.netloc and parts.path:
        return DirectoryBlobs(parts.path)
    if parts.scheme not in _SCHEMES or not parts.netloc or parts.username or parts.query:
        raise ConfigError(
            "expected blobs as a path, file:///PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or "
            "az://CONTAINER/PREFIX, with credentials in the environment and not in the URL",
            code="registry.blobs",
        )
    try:
        store, reader = (
            obstore.store.from_url(url, client_options=_client(options), retry_config=_RETRIES)
            for options in (_CLIENT, _READER)
        )
    except (BaseError, OSError, ValueError) as e:
        raise ConfigError(
            f"{url} cannot be used ({_said(e)}); check the environment variables",
            code="registry.blobs",
        ) from e
    return ObjectBlobs(store, url, reader)


def _client(options: ClientConfig) -> ClientConfig:
    # Only who names an endpoint without TLS, such as a server on this machine, gets a connection without.
    plain = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
    return {**options, "allow_http": plain}


def _key(digest: Digest) -> str:
    return f"sha256/{digest.hex[:2]}/{digest.hex}"


def _digest(path: str) -> Digest | None:
    """The digest of a key that is one of ours."""
    try:
        digest = Digest(path.rpartition("/")[2])
    except ArtifactError:
        return None
    return digest if path == _key(digest) else None


def _said(error: Exception) -> str:
    """The reason in one line; obstore puts the whole inside of its error behind it."""
    return repr(" ".join(str(error).partition("Debug source:")[0].split())[:240])
