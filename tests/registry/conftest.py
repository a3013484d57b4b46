"""Databases and blob stores, real ones: each test that takes `place` runs on all of them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from foreword.registry.blobs import BlobStore
from foreword.registry.database import Database
from foreword.registry.directory import DirectoryBlobs
from foreword.registry.layout import Layout, init
from foreword.registry.objects import open_blobs
from foreword.registry.registry import Registry
from tests.registry import servers


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[servers.PostgresServer]:
    with servers.postgres() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", server.password)
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[servers.S3Server]:
    with servers.s3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def postgres_url(postgres_server: servers.PostgresServer) -> str:
    """An empty schema of its own. The password is in PGPASSWORD."""
    name = f"test_{uuid.uuid4().hex}"
    postgres_server.execute(f"CREATE SCHEMA {name}")
    return f"{postgres_server.url}?options=-csearch_path%3D{name}"


@pytest.fixture
def s3_url(s3_server: servers.S3Server) -> str:
    """An empty place in a bucket. Endpoint and credentials are in the environment."""
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with the current schema."""
    with contextlib.closing(Database(database_url)) as database:
        database.create()
        database.migrate()
        yield database


@pytest.fixture(params=["directory", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "s3":
        return open_blobs(request.getfixturevalue("s3_url"))
    directory = DirectoryBlobs(tmp_path / "blobs")
    directory.create()
    return directory


@pytest.fixture(params=["sqlite-directory", "postgres-directory", "sqlite-s3", "postgres-s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Layout:
    """A registry that was made, on one of the four pairs of database and blob store."""
    database, blobs = request.param.split("-")
    settings = {}
    if database == "postgres":
        settings["database"] = request.getfixturevalue("postgres_url")
    if blobs == "s3":
        settings["blobs"] = request.getfixturevalue("s3_url")
    return init(Layout(tmp_path / "registry", **settings))


@pytest.fixture
def registry(place: Layout) -> Iterator[Registry]:
    with Registry.open(place.directory) as registry:
        yield registry


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Registry]:
    """A registry on SQLite and a directory, for what does not depend on either."""
    with Registry.open(init(Layout(tmp_path / "registry")).directory) as registry:
        yield registry
