"""Two actors on one registry, stopped before every step they take and let on in any order.

The stores and the database are real; a gate before each of their operations decides who goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from foreword.artifact import Digest
from foreword.registry.blobs import BlobStore, StoredBlob, Stray
from foreword.registry.database import Database

_T = TypeVar("_T")
_PATIENCE_SECONDS = 30


class Killed(BaseException):
    """The actor's process is gone: nothing behind this line of its code ever happens."""


class Actor:
    """Runs `work` in a thread, one step at a time."""

    def __init__(self, work: Callable[[Actor], object]) -> None:
        self._work = work
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._is_killed = False
        self.error: Exception | None = None
        self.is_done = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._wait()

    def gate(self) -> None:
        """Called by the actor's own thread before each step."""
        self._stopped.release()
        self._go.acquire()
        if self._is_killed:
            raise Killed

    def steps(self, count: int) -> int:
        """Let it take steps; how many it took, fewer if it came to its end."""
        for taken in range(count):
            if self.is_done:
                return taken
            self._go.release()
            self._wait()
        return count

    def finish(self) -> None:
        while not self.is_done:
            self.steps(1)
        if self.error:
            raise self.error

    def kill(self) -> None:
        self._is_killed = True
        while not self.is_done:
            self.steps(1)

    def _run(self) -> None:
        try:
            self.gate()
            self._work(self)
        except Killed:
            pass
        except Exception as e:
            self.error = e
        self.is_done = True
        self._stopped.release()

    def _wait(self) -> None:
        if not self._stopped.acquire(timeout=_PATIENCE_SECONDS):
            raise TimeoutError("the actor came to no gate")


class GatedDatabase(Database):
    """Every statement is a step."""

    def __init__(self, url: str, actor: Actor) -> None:
        super().__init__(url)
        self._actor = actor

    def run(self, work: Callable[[sa.Connection], _T]) -> _T:
        self._actor.gate()
        return super().run(work)


class GatedBlobs:
    """Everything that is done to a blob (or only to one of them) is a step, and so is every list."""

    def __init__(self, inner: BlobStore, actor: Actor, contested: Digest | None = None) -> None:
        self._inner = inner
        self._actor = actor
        self._contested = contested
        self.shown = inner.shown

    def create(self) -> None:
        self._inner.create()

    def put(self, data: bytes) -> Digest:
        return self._step(Digest.of(data), self._inner.put, data)

    def get(self, digest: Digest, most: int) -> bytes:
        return self._step(digest, self._inner.get, digest, most)

    def find(self, digest: Digest) -> StoredBlob | None:
        return self._step(digest, self._inner.find, digest)

    def delete(self, digest: Digest) -> bool:
        return self._step(digest, self._inner.delete, digest)

    def stored(self) -> Iterator[StoredBlob]:
        self._actor.gate()
        yield from list(self._inner.stored())

    def strays(self) -> Iterator[Stray]:
        return self._inner.strays()

    def sweep(self, before: datetime) -> int:
        return self._inner.sweep(before)

    def beside(self, name: str) -> GatedBlobs:
        return GatedBlobs(self._inner.beside(name), self._actor, self._contested)

    def _step(self, digest: Digest, act: Callable[..., _T], *arguments: Any) -> _T:
        if self._contested in (None, digest):
            self._actor.gate()
        return act(*arguments)
