"""Prefixes that are in memory already, in place of a store that loads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from foreword.artifact import Digest
from foreword.errors import EngineFailed, PrefixUnavailable
from foreword.prefix.loading import LoadedPrefix
from foreword.serving.contract import ResidentPrefix
from foreword.serving.engine.residency.device import Resident


class Prefixes(Protocol):
    """What the engine needs of a store; `PrefixStore` documents the meaning."""

    def want(self, digest: Digest, now: float) -> Resident | None: ...
    def pin(self, resident: Resident) -> None: ...
    def unpin(self, resident: Resident) -> None: ...
    def collect(self, now: float) -> list[Digest]: ...
    def prefetch(self, digests: Iterable[Digest], now: float) -> None: ...
    def forget(self, digest: Digest, now: float) -> None: ...
    def residents(self) -> list[ResidentPrefix]: ...
    @property
    def loading(self) -> bool:
        """Whether `collect` should be called soon, although no request waits for it."""
        ...

    @property
    def nbytes(self) -> int:
        """Device bytes of resident prefixes, those being built included."""
        ...

    @property
    def budget(self) -> int: ...
    def check_integrity(self) -> None: ...
    def close(self) -> None: ...


class HeldPrefixes:
    """A fixed set of loaded prefixes; they stay as long as this does."""

    def __init__(self, prefixes: Iterable[LoadedPrefix]) -> None:
        self._residents = {
            p.digest: Resident(p.digest, p.name, p.version, p.kv, p.kv.nbytes) for p in prefixes
        }
        self._pins: Counter[Digest] = Counter()

    def want(self, digest: Digest, now: float) -> Resident | None:
        """The prefix of that digest.

        Raises:
            PrefixUnavailable: it is not one of the set.
        """
        resident = self._residents.get(digest)
        if resident is None:
            raise PrefixUnavailable(
                f"prefix {digest.short} is not one of the {len(self._residents)} that were given",
                code="prefix.unknown",
            )
        return resident

    def pin(self, resident: Resident) -> None:
        self._pins[resident.digest] += 1

    def unpin(self, resident: Resident) -> None:
        self._pins[resident.digest] -= 1

    def collect(self, now: float) -> list[Digest]:
        """Nothing is ever loaded here."""
        return []

    def prefetch(self, digests: Iterable[Digest], now: float) -> None:
        """What is not here cannot be had."""

    def residents(self) -> list[ResidentPrefix]:
        return [
            ResidentPrefix(each.digest, each.nbytes, self._pins[each.digest])
            for each in self._residents.values()
        ]

    @property
    def loading(self) -> bool:
        return False

    def forget(self, digest: Digest, now: float) -> None:
        """Leave a prefix out of the set from now on."""
        self._residents.pop(digest, None)

    @property
    def nbytes(self) -> int:
        return sum(resident.nbytes for resident in self._residents.values())

    @property
    def budget(self) -> int:
        return self.nbytes

    def close(self) -> None:
        self._residents.clear()

    def check_integrity(self) -> None:
        """Raise `EngineFailed` if a prefix was given back more often than taken."""
        if min(self._pins.values(), default=0) < 0:
            raise EngineFailed("a prefix was unpinned too often", code="prefix.pins")
