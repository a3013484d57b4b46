"""Which resident prefix goes first: the order of those nobody is using.

A prefix that was used once since it came waits in `_new`; one that was used again, or that comes back
soon after it was evicted, is in `_known`. Both are in order of last use. The oldest of `_new` goes first
as long as `_new` has more than its share, so that a scan over many prefixes that are asked for once
passes through it and leaves the known ones alone. Every operation takes constant time.

The idea of two queues and a memory of what was evicted is 2Q's (Johnson and Shasha, VLDB 1994).
"""

from __future__ import annotations

from collections import OrderedDict

from foreword.artifact import Digest

_SHARE = 0.1
"""Of the idle bytes, for prefixes that were used once."""
_MOST_REMEMBERED = 1 << 16
_LEAST_REMEMBERED = 64


class IdleOrder:
    """Idle prefixes and their bytes, and the names of some that were evicted."""

    def __init__(self) -> None:
        self._new: OrderedDict[Digest, int] = OrderedDict()
        self._known: OrderedDict[Digest, int] = OrderedDict()
        self._evicted: OrderedDict[Digest, None] = OrderedDict()
        self._new_bytes = 0
        self._known_bytes = 0

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._new or digest in self._known

    def __len__(self) -> int:
        return len(self._new) + len(self._known)

    @property
    def nbytes(self) -> int:
        return self._new_bytes + self._known_bytes

    def came_back(self, digest: Digest) -> bool:
        """True, once, if this prefix was evicted lately."""
        return self._evicted.pop(digest, self) is None

    def add(self, digest: Digest, nbytes: int, *, known: bool) -> None:
        """Put a prefix at the young end."""
        self.remove(digest)
        if known:
            self._known[digest] = nbytes
            self._known_bytes += nbytes
        else:
            self._new[digest] = nbytes
            self._new_bytes += nbytes

    def remove(self, digest: Digest) -> None:
        """Take a prefix out, if it is there: it is in use, or gone."""
        self._new_bytes -= self._new.pop(digest, 0)
        self._known_bytes -= self._known.pop(digest, 0)

    def evict(self) -> Digest | None:
        """Take out the one that goes next and remember its name; None if nothing is idle."""
        crowded = self._new_bytes > _SHARE * self.nbytes or not self._known
        queue = self._new if self._new and crowded else self._known
        if not queue:
            return None
        victim = next(iter(queue))
        self.remove(victim)
        self._evicted[victim] = None
        most = min(_MOST_REMEMBERED, max(_LEAST_REMEMBERED, 2 * len(self)))
        while len(self._evicted) > most:
            self._evicted.popitem(last=False)
        return victim
