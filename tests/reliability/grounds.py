"""Where registries are tried: on SQLite or PostgreSQL, each time a fresh copy of a prepared one.

Nothing here waits for a disk: a process that is killed leaves behind what the kernel has. What a power cut
leaves is worked out in disk.py.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from foreword.registry.layout import FILE, Layout, init
from tests.registry.servers import PostgresServer
from tests.reliability.world import prepare

INNER = Path("two", "levels")
"""Where in a place the registry lies: its directories have to be made, and can be lost."""


class Ground(Protocol):
    """A kind of database with a directory of blobs."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to get there."""

    def empty(self) -> contextlib.AbstractContextManager[Layout]:
        """A place where nothing was made yet; gone afterwards."""

    def copy(self) -> contextlib.AbstractContextManager[Layout]:
        """A copy of the registry that `prepare` made; gone afterwards."""


def place_for(operation: str, ground: Ground) -> contextlib.AbstractContextManager[Layout]:
    """Where an operation can be done."""
    return ground.empty() if operation == "init" else ground.copy()


@dataclass
class OnSqlite:
    """Journal and blobs in one directory."""

    scratch: Path
    name: str = "SQLite"
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seed = Layout(self.scratch / "seed" / INNER)
        prepare(self._seed)
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def empty(self) -> Iterator[Layout]:
        place = self.scratch / str(next(self._numbers))
        place.mkdir()
        yield Layout(place / INNER)
        shutil.rmtree(place)

    @contextlib.contextmanager
    def copy(self) -> Iterator[Layout]:
        with self.empty() as layout:
            shutil.copytree(self._seed.directory, layout.directory)
            yield layout


@dataclass
class OnPostgres:
    """The journal in a schema of its own for every copy, blobs in a directory."""

    scratch: Path
    server: PostgresServer
    name: str = "PostgreSQL"

    def __post_init__(self) -> None:
        self.environment = {"PGPASSWORD": self.server.password}
        self._numbers = itertools.count()
        self.server.execute("ALTER SYSTEM SET fsync = off")
        self.server.execute("SELECT pg_reload_conf()")
        self._seed = self._layout("seed")
        prepare(self._seed)

    @contextlib.contextmanager
    def empty(self) -> Iterator[Layout]:
        layout = self._layout(f"copy_{next(self._numbers)}")
        yield layout
        place = layout.directory.parents[1]
        self.server.execute(f"DROP SCHEMA {place.name} CASCADE")
        shutil.rmtree(place)

    @contextlib.contextmanager
    def copy(self) -> Iterator[Layout]:
        with self.empty() as layout:
            shutil.copytree(self._seed.directory, layout.directory)
            (layout.directory / FILE).unlink()
            init(layout)
            schema = layout.directory.parents[1].name
            rows = "SELECT * FROM seed.journal ORDER BY seq"
            self.server.execute(f"SET search_path = {schema}; INSERT INTO journal {rows}")
            yield layout

    def _layout(self, schema: str) -> Layout:
        self.server.execute(f"CREATE SCHEMA {schema}")
        place = self.scratch / schema
        place.mkdir()
        database = f"postgresql://postgres@127.0.0.1:{self.server.port}/postgres"
        return Layout(place / INNER, f"{database}?options=-csearch_path%3D{schema}")
