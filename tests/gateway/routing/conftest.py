"""A registry that somebody changes while a follower follows it."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from foreword.artifact import Artifact, Digest
from foreword.errors import Overloaded
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from foreword.serving.contract import ResidentPrefix
from foreword.serving.gateway.routing.follower import Follower
from foreword.telemetry.records import ReleaseSeen
from tests.artifact.samples import tensors
from tests.gateway.routing.made import HERE
from tests.registry.samples import POLICY, by, publish
from tests.registry.scratch import scratch

NAME = "acme/support"


@dataclass
class Host:
    """What holds prefixes: one is resident `delay` seconds after it was asked for, or never."""

    delay: float | None = None
    refuses: bool = False
    asked: dict[Digest, float] = field(default_factory=dict)
    forgotten: list[Digest] = field(default_factory=list)

    def prefetch(self, digests: Sequence[Digest]) -> None:
        self._check()
        for digest in digests:
            self.asked.setdefault(digest, time.monotonic())

    def forget(self, digests: Sequence[Digest]) -> None:
        self._check()
        self.forgotten += digests

    def forget_tenant(self, tenant: str) -> None:
        raise AssertionError("the journal says nothing of tenants")

    def residents(self) -> tuple[ResidentPrefix, ...]:
        self._check()
        return tuple(ResidentPrefix(d, 1, 0) for d in list(self.asked) if self.is_resident(d))

    def is_resident(self, digest: Digest) -> bool:
        asked = self.asked.get(digest)
        return (
            self.delay is not None and asked is not None and time.monotonic() >= asked + self.delay
        )

    def _check(self) -> None:
        if self.refuses:
            raise Overloaded("no answer")


class Farm:
    """A registry in a directory, and followers of it that end with the test."""

    def __init__(self, directory: Path, layout: Layout, stack: contextlib.ExitStack) -> None:
        self.directory, self.layout, self._stack = directory, layout, stack
        self.registry = stack.enter_context(Registry.open(layout.directory))
        self.known_good = directory / "known-good.jsonl"
        self.seen: list[ReleaseSeen] = []
        self._made = 0

    def publish(self, *versions: str, name: str = NAME) -> list[Digest]:
        return [self._publish(version, name).digest for version in versions]

    def _publish(self, version: str, name: str) -> Artifact:
        self._made += 1  # numbers of its own, so that a version of another name has other bytes
        numbers = {key: struct.pack("<f", self._made) + data[4:] for key, data in tensors().items()}
        return publish(self.registry, version, name=name, tensors=numbers)

    def release(self, reference: str, share: float = 1.0) -> None:
        self.registry.release(reference, share, policy=POLICY, by=by())

    def revoke(self, reference: str) -> None:
        self.registry.revoke(reference, by=by())

    def open(self) -> Registry:
        """As a server opens it: without asking the database anything."""
        registry = Registry(self.layout.open_database(), self.layout.open_blobs())
        self._stack.callback(registry.close)
        return registry

    def follower(self, **settings: Any) -> Follower:
        settings.setdefault("told", self.seen.append)
        follower = Follower(self.open(), HERE, known_good=self.known_good, **settings)
        self._stack.callback(follower.stop)
        return follower

    def following(self, patience: float = 5.0, **settings: Any) -> Follower:
        follower = self.follower(**settings)
        follower.start(patience)
        return follower

    # Faults of a SQLite database.

    @property
    def database(self) -> Path:
        return self.layout.directory / "journal.db"

    def break_database(self) -> None:
        """Every read of the journal is refused from now on."""
        self._execute("ALTER TABLE journal RENAME TO hidden")

    def mend_database(self) -> None:
        self._execute("ALTER TABLE hidden RENAME TO journal")

    def forget_entries(self, count: int) -> None:
        """As if a backup that is older by some entries had been put in its place."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection, connection:
            for (trigger,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():
                connection.execute(f"DROP TRIGGER {trigger}")
            connection.execute(
                "DELETE FROM journal WHERE seq > (SELECT max(seq) FROM journal) - ?", (count,)
            )

    def _execute(self, statement: str) -> None:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            connection.execute(statement)


def stable(follower: Follower, name: str = NAME) -> Digest | None:
    named = follower.table.names.get(name)
    return named.release.stable if named and named.release else None


def seconds_until(holds: Callable[[], object], most: float = 10.0) -> float:
    """How long it took until something held."""
    began, pause = time.monotonic(), threading.Event()
    while not holds():
        if time.monotonic() - began > most:
            raise AssertionError(f"it did not happen within {most} s")
        pause.wait(0.005)
    return time.monotonic() - began


@pytest.fixture
def farm() -> Iterator[Farm]:
    with scratch() as directory, contextlib.ExitStack() as stack:
        yield Farm(directory, init(Layout(directory / "registry")), stack)
