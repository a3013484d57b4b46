"""The device tier: resident prefixes, who uses them, and every byte of it.

    reserve ──▶ admit ──▶ awaited ──▶ idle ◀──▶ pinned        retire: found by nobody any more, freed
       │                                │          │          with its last pin
       ▼                                ▼          ▼
    give_back                         evicted   retired

Bytes are reserved before a tensor is built, and count from then on. Nothing here is thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from foreword.artifact import Digest
from foreword.errors import EngineFailed, PrefixUnavailable
from foreword.prefix.kv import PrefixKV
from foreword.serving.contract import Phase, ResidentPrefix
from foreword.serving.engine.residency.eviction import IdleOrder

Leaving = Literal["room", "operator", "forgotten"]
Source = Literal["host", "disk", "fetch"]
"""Where the bytes come from."""


@dataclass(frozen=True)
class Load:
    """How a prefix came here: from where, and when each step was over, on the engine's clock."""

    source: Source
    began: float
    fetched: float
    verified: float
    roomed: float
    landed: float

    def phases(self, since: float) -> tuple[Phase, ...]:
        """The steps that were not over at `since`, in seconds from there."""
        steps = (
            ("fetch", self.began, self.fetched),
            ("verify", self.fetched, self.verified),
            ("attach", self.roomed, self.landed),
        )
        return tuple(
            Phase(name, max(0.0, start - since), end - since)
            for name, start, end in steps
            if end > since and end > start
        )


@dataclass(frozen=True, eq=False)
class Resident:
    """A prefix on the base's device that was verified, compared with the base and proved to behave.

    Its tensors are never written to. Two of the same digest are different residents.
    """

    digest: Digest
    name: str
    version: str
    kv: PrefixKV
    nbytes: int
    load: Load | None = None
    """None: it was always here."""

    @property
    def length(self) -> int:
        """Virtual tokens, m."""
        return self.kv.length


@dataclass
class _Held:
    """A resident and what is known about its use."""

    resident: Resident
    came_back: bool
    awaited_until: float | None
    """Somebody waits for it and has not pinned it yet; None once that is over."""
    pins: int = 0
    uses: int = 0
    fresh: bool = False
    """The next pin is by a request that had to wait for the load."""


class DeviceTier:
    """Residents within a budget of bytes. What is pinned, awaited or listed is never evicted."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        """Bytes of all residents, also of retired ones that are still pinned."""
        self.reserved = 0
        self.hits = self.misses = self.evictions = 0
        self.left: list[tuple[Digest, Leaving]] = []
        """What went since somebody last emptied this list."""
        self._held: dict[Digest, _Held] = {}
        self._retired: dict[Resident, _Held] = {}
        self._awaited: dict[Digest, _Held] = {}
        self._listed: frozenset[Digest] = frozenset()
        self._idle = IdleOrder()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def listed(self) -> frozenset[Digest]:
        return self._listed

    @property
    def pinned(self) -> int:
        """Residents that a request uses, retired ones too."""
        return len(self._retired) + sum(held.pins > 0 for held in self._held.values())

    def residents(self) -> Iterator[Resident]:
        """All that take up bytes."""
        for held in (*self._held.values(), *self._retired.values()):
            yield held.resident

    def found(self) -> list[ResidentPrefix]:
        """What can be pinned."""
        return [
            ResidentPrefix(digest, held.resident.nbytes, held.pins)
            for digest, held in self._held.items()
        ]

    def find(self, digest: Digest) -> Resident | None:
        held = self._held.get(digest)
        return held.resident if held else None

    def reserve(self, nbytes: int) -> bool:
        """Set bytes aside, evicting what is idle if need be; False, and nothing went, if it cannot."""
        lacking = nbytes - (self.budget - self.used - self.reserved)
        if lacking > self._idle.nbytes:
            return False
        while nbytes > self.budget - self.used - self.reserved:
            victim = self._idle.evict()
            if victim is None:
                return False
            self.used -= self._held.pop(victim).resident.nbytes
            self.evictions += 1
            self.left.append((victim, "room"))
        self.reserved += nbytes
        return True

    def give_back(self, nbytes: int) -> None:
        """What was reserved and not used."""
        self.reserved -= nbytes

    def admit(self, resident: Resident, awaited_until: float | None) -> None:
        """Turn a reservation of exactly these bytes into a resident.

        Until `awaited_until` it is kept for the requests that wait for it; None if none does.
        """
        self.reserved -= resident.nbytes
        self.used += resident.nbytes
        came_back = self._idle.came_back(resident.digest)
        held = _Held(resident, came_back, awaited_until, fresh=awaited_until is not None)
        self._held[resident.digest] = held
        if held.fresh:
            self._awaited[resident.digest] = held
        self._settle(held)

    def pin(self, resident: Resident) -> None:
        """One more request uses it.

        Raises:
            PrefixUnavailable: it is not resident, or not any more (`prefix.not_resident`).
        """
        held = self._held.get(resident.digest)
        if held is None or held.resident is not resident:
            raise PrefixUnavailable(
                f"prefix {resident.digest.short} was evicted or taken back; ask for it again",
                code="prefix.not_resident",
                retry_after=0.0,
            )
        self.misses += held.fresh
        self.hits += not held.fresh
        held.fresh = False
        held.uses += 1
        held.pins += 1
        self._no_longer_awaited(held)

    def unpin(self, resident: Resident) -> None:
        """One request less uses it; a retired one goes with its last pin.

        Raises:
            EngineFailed: it has no pin left to give back (`prefix.pins`).
        """
        held = self._retired.get(resident) or self._held.get(resident.digest)
        if held is None or held.resident is not resident or held.pins < 1:
            raise EngineFailed(
                f"prefix {resident.digest.short} was unpinned more often than pinned",
                code="prefix.pins",
            )
        held.pins -= 1
        if held.pins == 0 and self._retired.pop(resident, None) is not None:
            self.used -= resident.nbytes
        else:
            self._settle(held)

    def keep_listed(self, digests: Iterable[Digest]) -> None:
        """Replace the operator's list of prefixes that are never evicted."""
        before, self._listed = self._listed, frozenset(digests)
        for digest in before ^ self._listed:
            if digest in self._held:
                self._settle(self._held[digest])

    def expire(self, now: float) -> None:
        """Whoever waited for a prefix and has not come by now does not keep it any longer."""
        for held in list(self._awaited.values()):
            if held.awaited_until is not None and now >= held.awaited_until:
                self._no_longer_awaited(held)

    def evict(self, digest: Digest) -> bool:
        """Free an idle prefix; False if it is in use, listed or not there."""
        if digest not in self._idle:
            return False
        self._idle.remove(digest)
        self.used -= self._held.pop(digest).resident.nbytes
        self.evictions += 1
        self.left.append((digest, "operator"))
        return True

    def retire(self, digest: Digest) -> None:
        """Let nobody pin it any more; the requests that use it keep it to their end."""
        held = self._held.pop(digest, None)
        if held is None:
            return
        self.left.append((digest, "forgotten"))
        self._idle.remove(digest)
        self._awaited.pop(digest, None)
        if held.pins:
            self._retired[held.resident] = held
        else:
            self.used -= held.resident.nbytes

    def check_integrity(self) -> None:
        """Add everything up again.

        Raises:
            EngineFailed: a sum or a state does not hold (`prefix.integrity`).
        """
        real = sum(_storage_bytes(resident.kv) for resident in self.residents())
        require(self.used == real, f"{self.used} bytes are accounted for, tensors have {real}")
        total = self.used + self.reserved
        require(self.reserved >= 0 and total <= self.budget, f"{total} of {self.budget} are used")
        idle = {digest for digest, held in self._held.items() if self._is_idle(held)}
        require(len(idle) == len(self._idle) and all(digest in self._idle for digest in idle),
                 f"{len(idle)} prefixes are idle, {len(self._idle)} are queued")  # fmt: skip
        size = sum(self._held[digest].resident.nbytes for digest in idle)
        require(size == self._idle.nbytes, f"idle ones have {size} bytes, not {self._idle.nbytes}")
        require(all(held.pins > 0 for held in self._retired.values()), "a retired one has no pin")
        require(all(held.pins >= 0 for held in self._held.values()), "a pin was given back twice")

    def _no_longer_awaited(self, held: _Held) -> None:
        held.awaited_until = None
        self._awaited.pop(held.resident.digest, None)
        self._settle(held)

    def _is_idle(self, held: _Held) -> bool:
        listed = held.resident.digest in self._listed
        return held.pins == 0 and held.awaited_until is None and not listed

    def _settle(self, held: _Held) -> None:
        """Put it where it belongs after its state changed."""
        resident = held.resident
        if self._is_idle(held):
            known = held.came_back or held.uses > 1
            self._idle.add(resident.digest, resident.nbytes, known=known)
        else:
            self._idle.remove(resident.digest)


def _storage_bytes(kv: PrefixKV) -> int:
    """What the allocator handed out, views and padding included; counted once per storage."""
    storages = [t.untyped_storage() for _, _, layer in kv for t in (layer.key, layer.value)]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def require(holds: bool, otherwise: str) -> None:
    """Raise `EngineFailed` (`prefix.integrity`) with what is wrong, unless something holds."""
    if not holds:
        raise EngineFailed(f"prefix memory does not add up: {otherwise}", code="prefix.integrity")
