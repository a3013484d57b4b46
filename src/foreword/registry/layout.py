"""Where a registry lies: a directory with `registry.toml`, which says where journal and blobs are.

    schema = 1
    database = "sqlite:///journal.db"     or postgresql://user@host/name
    blobs = "blobs"                       or s3://bucket/prefix, gs://..., az://...
    approvals = 0                         by how many others a version is approved before it is released

Relative paths begin at the directory. The file holds no secrets: a password of PostgreSQL comes from
PGPASSWORD or ~/.pgpass, credentials of an object store from its usual environment variables.
"""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from foreword.config import foreword_home
from foreword.errors import ArtifactError, ConfigError, NotFound, RegistryError, StorageError
from foreword.registry.blobs import BlobStore
from foreword.registry.database import Database, parse_url
from foreword.registry.directory import make
from foreword.registry.objects import open_blobs
from foreword.signing import files

FILE = "registry.toml"
SCHEMA = 1
MAX_APPROVALS = 16
_MAX_BYTES = 64 << 10
_KEYS = {"schema": int, "database": str, "blobs": str, "approvals": int}


@dataclass(frozen=True)
class Layout:
    """What `registry.toml` says, and where it lies."""

    directory: Path
    database: str = "sqlite:///journal.db"
    blobs: str = "blobs"
    approvals: int = 0
    """Actors other than the publisher who have to approve a version before it is released."""

    def __post_init__(self) -> None:
        if not 0 <= self.approvals <= MAX_APPROVALS:
            raise ConfigError(
                f"expected 0 to {MAX_APPROVALS} approvals, got {self.approvals}",
                code="registry.approvals",
            )
        url = parse_url(self.database)
        if url.password is not None:
            raise ConfigError(
                f"{FILE} holds no secrets: leave the password out of the database URL and set "
                "PGPASSWORD, or use ~/.pgpass",
                code="registry.secret",
            )

    @classmethod
    def load(cls, directory: str | Path | None = None) -> Layout:
        """Read a directory's `registry.toml`; None is the default registry.

        Raises:
            NotFound: there is no registry (`registry.missing`).
            ConfigError: the file is malformed, or has a key nobody knows.
            StorageError: the disk refused.
        """
        directory = registry_path() if directory is None else Path(directory)
        path = directory / FILE
        try:
            data = files.read(path, _MAX_BYTES)
        except ArtifactError as e:
            if e.code != "artifact.missing":
                raise ConfigError(f"{e}; expected a registry", code="registry.layout") from e
            raise NotFound(
                f"there is no registry at {directory}; make one with `foreword registry init`, or name "
                "its directory in FOREWORD_REGISTRY",
                code="registry.missing",
            ) from e
        return cls(directory, **_values(path, data))

    def to_toml(self) -> bytes:
        lines = [
            f"schema = {SCHEMA}",
            f"database = {_quoted(self.database)}",
            f"blobs = {_quoted(self.blobs)}",
            f"approvals = {self.approvals}",
        ]
        return "\n".join([*lines, ""]).encode()

    def open_database(self) -> Database:
        """
        Raises:
            ConfigError: its driver is not installed.
        """
        url = parse_url(self.database)
        if url.get_backend_name() == "sqlite":
            url = url.set(database=str(self.directory / str(url.database)))
        return Database(url.render_as_string(hide_password=False))

    def open_blobs(self) -> BlobStore:
        """
        Raises:
            ConfigError: the URL cannot be used.
        """
        is_path = not urlsplit(self.blobs).scheme
        return open_blobs(str(self.directory / self.blobs) if is_path else self.blobs)


def registry_path() -> Path:
    """The default registry: `FOREWORD_REGISTRY`, else `FOREWORD_HOME/registry`."""
    named = os.environ.get("FOREWORD_REGISTRY")
    return Path(named).expanduser() if named else foreword_home() / "registry"


def init(layout: Layout) -> Layout:
    """Make a registry. One that is there already with the same settings stays as it is.

    The file comes last, so a registry whose making was cut short is not there yet; make it again.

    Raises:
        RegistryError: there is one with other settings (`registry.exists`), or the database has a
            schema that is older or newer.
        ConfigError, StorageError: something in it cannot be used, or refused.
    """
    _make(layout.directory)
    database, blobs = layout.open_database(), layout.open_blobs()
    try:
        _require_same(layout)
        database.create()
        if database.schema() is None:
            database.migrate()
        database.check()
    finally:
        database.close()
    blobs.create()
    if not files.create(layout.directory / FILE, layout.to_toml(), 0o644):
        _require_same(layout)
    return layout


def _require_same(layout: Layout) -> None:
    try:
        there = Layout.load(layout.directory)
    except NotFound:
        return
    if there != layout:
        raise RegistryError(
            f"there is a registry at {layout.directory} with other settings; change {FILE} by hand, or "
            "choose another directory",
            code="registry.exists",
        )


def _make(directory: Path) -> None:
    try:
        make(directory)
    except OSError as e:
        raise StorageError(
            f"{directory} could not be made ({e.strerror or e})", code="storage.write"
        ) from e


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string in this form is a TOML string


def _values(path: Path, data: bytes) -> dict[str, Any]:
    try:
        values = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as e:
        raise ConfigError(
            f"{path} is not valid TOML ({str(e)[:200]})", code="registry.layout"
        ) from e
    for key, value in values.items():
        _check(path, key, value)
    if values.pop("schema", None) != SCHEMA:
        raise ConfigError(
            f"{path}: expected schema = {SCHEMA}; another version of Foreword wrote it",
            code="registry.layout",
        )
    return values


def _check(path: Path, key: str, value: object) -> None:
    if key not in _KEYS:
        near = get_close_matches(key, _KEYS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_KEYS)}"
        raise ConfigError(f"{path}: nobody knows {key[:80]!r}; {hint}", code="config.unknown_key")
    if type(value) is not _KEYS[key]:
        raise ConfigError(
            f"{path}: expected {_KEYS[key].__name__} for {key}, got {str(value)[:80]!r}",
            code="registry.layout",
        )
