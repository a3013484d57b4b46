"""What the journal does not hold: how inputs are put to a version, read from its manifest.

A manifest lies in the object store, which may be slow or away. So it is read on threads, once for each
version, those that serve first; what could not be read is tried again until it can.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterable

from foreword.artifact import Digest, Manifest, PromptFormat
from foreword.artifact.canonical import MAX_BYTES as MAX_MANIFEST
from foreword.errors import ForewordError
from foreword.registry.blobs import BlobStore

_WORKERS = 4
_SHORTEST, _LONGEST = 0.05, 2.0
"""Seconds before a thread whose read failed tries another one."""


class Manifests:
    """Reads prompts for a follower. `told` is called from the threads, once for each version."""

    def __init__(self, blobs: BlobStore, told: Callable[[Digest, PromptFormat], None]) -> None:
        self._blobs, self._told = blobs, told
        self._first: deque[Digest] = deque()
        self._rest: deque[Digest] = deque()
        self._asked: set[Digest] = set()
        self._taken: set[Digest] = set()
        """Read, or being read."""
        self._same: dict[PromptFormat, PromptFormat] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"foreword-manifests-{number}", daemon=True)
            for number in range(_WORKERS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, patience: float) -> None:
        """A read that hangs is left to itself."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(patience)

    def ask(self, digests: Iterable[Digest], *, first: bool = False) -> None:
        """Read these too; `first`: before all that is waiting. What was read is not read again."""
        with self._changed:
            for digest in digests:
                if first and digest not in self._taken and digest not in self._first:
                    self._first.append(digest)
                elif digest not in self._asked:
                    self._rest.append(digest)
                self._asked.add(digest)
            self._changed.notify_all()

    def know(self, digests: Iterable[Digest]) -> None:
        """These need not be read."""
        with self._changed:
            self._asked.update(digests)
            self._taken.update(digests)

    def _work(self) -> None:
        failures = 0
        while (digest := self._take()) is not None:
            try:
                prompt = Manifest.from_bytes(self._blobs.get(digest, MAX_MANIFEST)).prompt
            except ForewordError:
                failures += 1
                self._put_back(digest)
                self._stopping.wait(_pause(failures))
                continue
            failures = 0
            # Thousands of versions have one template, and a chat template is long.
            self._told(digest, self._same.setdefault(prompt, prompt))

    def _take(self) -> Digest | None:
        with self._changed:
            while not self._stopping.is_set():
                while self._first or self._rest:
                    digest = (self._first or self._rest).popleft()
                    if digest not in self._taken:
                        self._taken.add(digest)
                        return digest
                self._changed.wait()
        return None

    def _put_back(self, digest: Digest) -> None:
        with self._changed:
            self._taken.discard(digest)
            self._rest.append(digest)


def _pause(failures: int) -> float:
    longest = min(_LONGEST, _SHORTEST * 2.0 ** min(failures, 16))
    return longest * random.uniform(0.5, 1.0)
