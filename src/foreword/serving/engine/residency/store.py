"""The prefix store: from a digest to a resident prefix, or to a reason why not.

    absent ──want──▶ loading (loads.py) ──▶ resident (device.py) ──evict──▶ absent
      ▲                 │
      └── back-off ── failed (breaker.py)

A digest has one load at a time, however many requests want it. Invariants:

- a resident has the digest it is asked by, was vouched for, compared with the base, and its probe came
  out in this process, on this base
- its bytes were reserved before its tensors were built, and nothing in use was evicted for them
- the failure of one digest changes nothing for another; only where nobody answered, what would have to
  be fetched from there is refused for a moment (circuit.py)
- nothing here waits: whatever may take long runs on threads, and every state is the engine thread's
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from foreword.artifact import Digest
from foreword.errors import ConfigError
from foreword.prefix.base_model import BaseModel
from foreword.serving.contract import ResidentPrefix
from foreword.serving.engine.residency.breaker import Breaker, BreakerRules, Failure, after_failure
from foreword.serving.engine.residency.bringing import Fetch
from foreword.serving.engine.residency.circuit import (
    Circuit,
    CircuitRules,
    after_departure,
    after_fetch,
)
from foreword.serving.engine.residency.device import DeviceTier, Resident, require
from foreword.serving.engine.residency.flights import Landing, LoadLimits, Tiers
from foreword.serving.engine.residency.loads import Loads
from foreword.serving.engine.residency.tiers import DiskTier, HostTier
from foreword.telemetry.records import PrefixEvicted, PrefixLoaded

__all__ = ["BreakerRules", "Budgets", "LoadLimits", "PrefixStore", "Resident", "StoreStats"]

_MOST_BREAKERS = 10_000
"""Names of prefixes that do not exist cost a client nothing; what failed longest ago is forgotten."""
_LIST_EVERY = 0.1
"""Seconds between two looks for listed prefixes that are not here; the list may be long."""


@dataclass(frozen=True)
class Budgets:
    """Bytes of keys and values."""

    device: int
    host: int = 0
    """Ignored if the base is on a CPU: there the device's memory is the host's."""

    def __post_init__(self) -> None:
        if min(self.device, self.host) < 0:
            raise ConfigError(f"a budget is 0 bytes or more, got {self}", code="config.value")


@dataclass(frozen=True)
class StoreStats:
    """What the store holds now and has done so far."""

    device_bytes: int
    reserved_bytes: int
    """Of prefixes that are being built; they count against the device's budget too."""
    host_bytes: int
    disk_bytes: int
    resident: int
    pinned: int
    loading: int
    hits: int
    """Pins of a prefix that was there when it was asked for."""
    misses: int
    """Pins that had to wait for a load."""
    loads: Mapping[str, int]
    """By where the bytes came from: `host`, `disk` or `fetch`."""
    evictions: int
    failures: Mapping[str, int]
    """Loads that failed, by the code of the refusal."""
    unwritten: int
    """Copies that the disk refused or was too slow for."""


class PrefixStore:
    """Prefixes of one base by digest: resident ones at once, others as soon as they are loaded.

    `fetch` gives a verified artifact; it runs on threads, may block and may raise. `woken` is called
    from those threads when `collect` has something to do. Everything else is the engine thread's.
    `told` hears of every load and every prefix that left, at the next `collect`; it must not raise.
    `now` is `time.monotonic()`, `clock` gives Unix time.
    """

    def __init__(
        self,
        base: BaseModel,
        fetch: Fetch,
        budgets: Budgets,
        *,
        disk: DiskTier | None = None,
        workers: int = 2,
        limits: LoadLimits | None = None,
        rules: BreakerRules | None = None,
        rng: random.Random | None = None,
        woken: Callable[[], None] = lambda: None,
        told: Callable[[PrefixLoaded | PrefixEvicted], None] = lambda record: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._device, self._disk = DeviceTier(budgets.device), disk
        self._host = HostTier(budgets.host) if base.device.type != "cpu" else None
        tiers = Tiers(self._device, self._host, disk)
        self._loads = Loads(base, fetch, tiers, limits or LoadLimits(), workers, woken)
        self._rules, self._rng = rules or BreakerRules(), rng or random.Random()
        self._told, self._clock = told, clock
        self._breakers: dict[Digest, Breaker] = {}
        self._circuit, self._circuit_rules = Circuit(), CircuitRules()
        self._failures: Counter[str] = Counter()
        self._prefetch_from = self._list_from = float("-inf")

    # For requests.

    def want(self, digest: Digest, now: float) -> Resident | None:
        """The prefix if it is resident; None while it is being loaded, which this begins.

        To be called again after each `collect`, until it gives a prefix or raises.

        Raises:
            PrefixUnavailable: it cannot be had now. `code` says why: `prefix.fetch_failed`,
                `prefix.fetch_timeout`, `prefix.not_verified`, `prefix.damaged`,
                `prefix.does_not_fit_base`, `prefix.probe_failed`, `prefix.over_budget`,
                `prefix.no_room` or `prefix.no_memory`. Nothing is tried before `retry_after` is over.
        """
        resident = self._device.find(digest)
        if resident is None and self._may_load(digest, now):
            if not self._depart(digest, now, asked=True):
                raise self._circuit.refusal(digest.short, now)
        elif resident is None and (breaker := self._breakers[digest]).refuses:
            raise breaker.refusal(digest.short, now)
        return resident

    def pin(self, resident: Resident) -> None:
        """One more running request uses it; it is not evicted before the last `unpin`.

        Raises:
            PrefixUnavailable: it was evicted or forgotten since `want` gave it
                (`prefix.not_resident`).
        """
        self._device.pin(resident)

    def unpin(self, resident: Resident) -> None:
        """One running request less.

        Raises:
            EngineFailed: it was not pinned (`prefix.pins`).
        """
        self._device.unpin(resident)

    # For the engine and the operator.

    def collect(self, now: float) -> list[Digest]:
        """Take over what the threads have brought; gives what became resident. Once each step."""
        ready = []
        for landing in self._landings(now):
            self._told(_loaded(landing, self._clock()))
            if landing.failure is None:
                self._breakers.pop(landing.digest, None)
                ready.append(landing.digest)
            else:
                self._note(landing, landing.failure, now)
        self._device.expire(now)
        self._tell_who_left()
        if now >= self._list_from:
            self._list_from = now + _LIST_EVERY
            self.prefetch(self._device.listed, now)
        return ready

    def prefetch(self, digests: Iterable[Digest], now: float) -> None:
        """Begin to load what is not here, ahead of any request; a failure is counted, not raised."""
        if now < self._prefetch_from:
            return
        for digest in digests:
            if self._device.find(digest) is None and self._may_load(digest, now):
                self._depart(digest, now, asked=False)

    @property
    def loading(self) -> bool:
        """Whether something is on its way, asked for or not."""
        return len(self._loads) > 0

    def residents(self) -> list[ResidentPrefix]:
        """What a request would find loaded."""
        return self._device.found()

    def pin_list(self, digests: Iterable[Digest]) -> None:
        """The operator's list: loaded from the next `collect` on, never evicted. Replaces the last."""
        self._device.keep_listed(digests)
        self._list_from = float("-inf")

    def evict(self, digest: Digest) -> bool:
        """Free its device memory now; False if it is in use, on the list, or not resident."""
        return self._device.evict(digest)

    def forget(self, digest: Digest, now: float) -> None:
        """Drop every copy and all that is known of a prefix, such as when it is revoked.

        Nobody pins it any more; running requests keep theirs to the end. A later `want` fetches it
        and asks for trust anew.
        """
        self._loads.cancel(digest)
        self._device.keep_listed(self._device.listed - {digest})
        self._device.retire(digest)
        if self._host is not None:
            self._host.remove(digest)
        self._loads.discard_copy(digest, now)
        self._breakers.pop(digest, None)

    def check_integrity(self) -> None:
        """Add up every byte and look at every state again.

        Raises:
            EngineFailed: something does not hold (`prefix.integrity`).
        """
        self._device.check_integrity()
        require(
            self._device.reserved == self._loads.reserved,
            f"{self._device.reserved} bytes are reserved, loads hold {self._loads.reserved}",
        )
        both = [r.digest for r in self._device.residents() if r.digest in self._loads]
        require(
            not any(self._device.find(digest) for digest in both),
            "a prefix is resident and being loaded",
        )

    @property
    def nbytes(self) -> int:
        """Device bytes of resident prefixes and of those that are being built."""
        return self._device.used + self._device.reserved

    @property
    def budget(self) -> int:
        """Device bytes there may be."""
        return self._device.budget

    def stats(self) -> StoreStats:
        device, loads = self._device, self._loads
        return StoreStats(
            device_bytes=device.used,
            reserved_bytes=device.reserved,
            host_bytes=self._host.nbytes if self._host else 0,
            disk_bytes=self._disk.nbytes if self._disk else 0,
            resident=len(device),
            pinned=device.pinned,
            loading=len(loads),
            hits=device.hits,
            misses=device.misses,
            loads=dict(loads.by_source),
            evictions=device.evictions,
            failures=dict(self._failures),
            unwritten=loads.unwritten,
        )

    def close(self) -> None:
        """Give up what is being loaded and let go of what is resident."""
        self._loads.close()
        for resident in list(self._device.residents()):
            self._device.retire(resident.digest)

    def _tell_who_left(self) -> None:
        left, self._device.left = self._device.left, []
        for digest, reason in left:
            self._told(PrefixEvicted(self._clock(), str(digest), reason))

    def _depart(self, digest: Digest, now: float, *, asked: bool) -> bool:
        """Begin a load; False if it would have to be fetched and nobody is there."""
        if self._loads.is_far(digest):
            if not self._circuit.lets_through(now):
                return False
            self._circuit = after_departure(self._circuit, now, self._circuit_rules)
        self._loads.depart(digest, now, asked=asked)
        return True

    def _landings(self, now: float) -> list[Landing]:
        """What has landed; once nobody is there, also what has not begun to be fetched."""
        landings, was_open = self._loads.collect(now), self._circuit.is_open
        for landing in landings:
            if landing.source == "fetch":
                self._circuit = after_fetch(
                    self._circuit, landing.digest, landing.failure, now, self._circuit_rules
                )
        if self._circuit.last is not None and not was_open:
            reason = TimeoutError(self._circuit.last.reason)
            landings += self._loads.give_up_fetches(reason)
        self._loads.most_fetches = self._circuit.most_at_once(self._circuit_rules)
        self._loads.start(now)
        return landings

    def _may_load(self, digest: Digest, now: float) -> bool:
        breaker = self._breakers.get(digest)
        return breaker is None or breaker.lets_through(now)

    def _note(self, landing: Landing, failure: Failure, now: float) -> None:
        self._failures[failure.code] += 1
        if failure.code == "prefix.no_room" and not landing.asked:
            # A request would have waited for the room, so this must not close the door on one.
            self._prefetch_from = now + self._rules.longest
            return
        # Taken out first: the order of the table is that of the last failures.
        before = self._breakers.pop(landing.digest, None)
        jitter = self._rng.random()
        self._breakers[landing.digest] = after_failure(before, failure, now, self._rules, jitter)
        if len(self._breakers) > _MOST_BREAKERS:
            del self._breakers[next(iter(self._breakers))]


def _loaded(landing: Landing, time: float) -> PrefixLoaded:
    return PrefixLoaded(
        time,
        str(landing.digest),
        landing.name,
        landing.source,
        landing.failure.code if landing.failure else "",
        landing.nbytes,
        landing.phases,
    )
