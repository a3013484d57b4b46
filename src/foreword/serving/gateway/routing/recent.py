"""Which prefixes requests used last: what a new process loads first."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from foreword.artifact import Digest
from foreword.serving.gateway.routing.known_good import MAX_RECENT


class Recent:
    """Digests by last use, the latest `most` of them. Safe from any thread."""

    def __init__(self, most: int = MAX_RECENT) -> None:
        self._most = most
        self._used: dict[Digest, None] = {}
        self._lock = threading.Lock()

    def note(self, digest: Digest) -> None:
        with self._lock:
            self._used.pop(digest, None)
            self._used[digest] = None
            if len(self._used) > self._most:
                del self._used[next(iter(self._used))]

    def remember(self, digests: Iterable[Digest]) -> None:
        """Take over what another process used, the latest first, as used before everything here."""
        with self._lock:
            before = dict.fromkeys(reversed(tuple(digests)))
            merged = [each for each in before if each not in self._used] + list(self._used)
            self._used = dict.fromkeys(merged[-self._most :])

    def latest(self) -> tuple[Digest, ...]:
        """The latest first."""
        with self._lock:
            return tuple(reversed(self._used))
