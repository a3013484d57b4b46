"""Loads: the way of a prefix from a digest to the device, one flight per digest.

    READING ──bytes are there, vouched for, fit the base──▶ ROOM ──bytes reserved──▶ BUILDING
       │      from the host's memory, our disk or `fetch`    │                           │
       │                                                     │                     tensors are there
       ▼                                                     ▼                           ▼
    failed ◀──────────────────────────────────────────── waited too long            PROOF ──▶ landed

READING and BUILDING run on threads (`lanes.py`); every change of state is the engine thread's. A flight
that is cancelled is taken out of the table, and whatever its thread still brings finds nobody.

Not in the budget is what an artifact itself takes up on its way: at most `5 * workers` of them being read
or waiting for room, as many bytes again as are reserved, and `_MOST_UNWRITTEN` on their way to the disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from foreword.artifact import Digest, Manifest
from foreword.errors import ForewordError, PrefixUnavailable
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import PrefixKV
from foreword.prefix.probe import check_probes
from foreword.serving.engine.residency.breaker import Failure
from foreword.serving.engine.residency.bringing import Bringing, Fetch
from foreword.serving.engine.residency.device import Resident
from foreword.serving.engine.residency.flights import (
    Built,
    Flight,
    Found,
    Landing,
    LoadLimits,
    Stage,
    Tiers,
)
from foreword.serving.engine.residency.lanes import Lane
from foreword.serving.engine.residency.tiers import HostCopy

_MOST_UNWRITTEN = 8
"""Copies that wait for a slow disk; more are not kept."""
_FETCHES = 4
"""Fetches for each worker: they wait more than they work, and some for what never comes."""
_MOST_PROVED = 100_000
"""Digests; forgetting one costs no more than another probe."""


class Loads:
    """The flights of one store. `woken` is called by threads when `collect` has something to do."""

    def __init__(
        self,
        base: BaseModel,
        fetch: Fetch,
        tiers: Tiers,
        limits: LoadLimits,
        workers: int,
        woken: Callable[[], None],
    ) -> None:
        self._base, self._tiers, self._limits = base, tiers, limits
        self._bring = Bringing(base, fetch)
        # Apart, so that a store that is down keeps nobody from what lies on our own disk.
        self._fetches: Lane[Flight, Found | None] = Lane(
            "fetch", _FETCHES * workers, limits.fetch, woken
        )
        self._reads: Lane[Flight, Found | None] = Lane("read", workers, limits.load, woken)
        self._builds: Lane[Flight, Built] = Lane("build", workers, limits.load, woken)
        self._writes: Lane[Digest, object] = Lane("write", 1, limits.load, woken)
        self._flights: dict[Digest, Flight] = {}
        self._proved: set[Digest] = set()
        self.most_fetches: int | None = None
        """At once; None: as many as there are places."""
        self.by_source: Counter[str] = Counter()
        self.unwritten = 0
        """Copies that the disk refused or was too slow for."""

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._flights

    @property
    def reserved(self) -> int:
        """Bytes set aside for what is being built or proved."""
        return sum(flight.reserved for flight in self._flights.values())

    def is_far(self, digest: Digest) -> bool:
        """Whether a load would have to fetch it, and none is under way."""
        host, disk = self._tiers.host, self._tiers.disk
        near = (host is not None and digest in host) or (disk is not None and digest in disk)
        return not near and digest not in self._flights

    def give_up_fetches(self, failure: BaseException) -> list[Landing]:
        """Fail every fetch that has not begun."""
        return [
            self._failed(flight, failure)
            for flight in self._fetches.drop()
            if self._flights.get(flight.digest) is flight
        ]

    def depart(self, digest: Digest, now: float, *, asked: bool) -> None:
        """Begin a load, or join the one there is."""
        flight = self._flights.get(digest)
        if flight is not None:
            flight.asked |= asked
            return
        copy = self._tiers.host.get(digest) if self._tiers.host else None
        disk = self._tiers.disk
        if copy is not None:
            flight = Flight(digest, asked, "host", now)
            self._arrived(flight, Found(copy.manifest, copy.kv), now)
        elif disk is not None and digest in disk:
            flight = Flight(digest, asked, "disk", now)
            self._reads.submit(flight, lambda: self._bring.from_disk(disk, digest))
        else:
            flight = Flight(digest, asked, "fetch", now)
            self._fetches.submit(flight, lambda: self._bring.from_afar(digest))
        self._flights[digest] = flight
        self.start(now)

    def cancel(self, digest: Digest) -> None:
        """Give a flight up, if there is one; also forget that its digest was ever proved."""
        self._proved.discard(digest)
        flight = self._flights.pop(digest, None)
        if flight is not None:
            self._tiers.device.give_back(flight.reserved)

    def discard_copy(self, digest: Digest, now: float) -> None:
        """Delete what the disk has, without waiting for it."""
        disk = self._tiers.disk
        if disk is not None:  # also if there is none yet: one may be about to be written
            self._writes.submit(digest, lambda: disk.drop(digest))
            self._writes.start(now)

    def collect(self, now: float) -> list[Landing]:
        """Take over what the threads have brought. To be followed by `start`."""
        landings = [
            *self._take_found(now),
            *self._make_room(now),
            *self._take_built(now),
            *self._prove(now),
        ]
        for outcome in self._writes.collect(now):
            self.unwritten += outcome.error is not None
        return landings

    def close(self) -> None:
        for lane in (self._fetches, self._reads, self._builds, self._writes):
            lane.close()
        for digest in list(self._flights):
            self.cancel(digest)

    def start(self, now: float) -> None:
        """Begin what there is a place for."""
        # Bytes that wait for room take up memory nobody has reserved, so no more are brought then.
        if not any(flight.stage is Stage.ROOM for flight in self._flights.values()):
            self._fetches.start(now, self.most_fetches)
            self._reads.start(now)
        self._builds.start(now)
        self._writes.start(now)

    def _take_found(self, now: float) -> Iterator[Landing]:
        for lane in (self._reads, self._fetches):
            for outcome in lane.collect(now):
                flight = outcome.ticket
                if self._flights.get(flight.digest) is not flight:
                    continue
                if outcome.error is not None:
                    yield self._failed(flight, outcome.error)
                elif outcome.result is None:
                    self._from_afar(flight)
                else:
                    self._arrived(flight, outcome.result, now)
                    self._keep_copy(flight)

    def _from_afar(self, flight: Flight) -> None:
        """Our own copy was no good."""
        flight.source = "fetch"
        self._fetches.submit(flight, lambda: self._bring.from_afar(flight.digest))

    def _arrived(self, flight: Flight, found: Found, now: float) -> None:
        flight.found, flight.stage, flight.since = found, Stage.ROOM, now
        flight.judging = 0.0 if isinstance(found.tensors, PrefixKV) else found.tensors.seconds

    def _keep_copy(self, flight: Flight) -> None:
        disk, found = self._tiers.disk, flight.found
        if disk is None or found is None or flight.source != "fetch":
            return
        verified = found.tensors
        if self._writes.backlog >= _MOST_UNWRITTEN or isinstance(verified, PrefixKV):
            self.unwritten += 1
        else:
            self._writes.submit(flight.digest, lambda: disk.put(verified))

    def _make_room(self, now: float) -> Iterator[Landing]:
        """First come, first served: a large prefix is not starved by small ones that fit."""
        for flight in [f for f in self._flights.values() if f.stage is Stage.ROOM]:
            found = flight.found
            if found is None:
                continue
            if self._tiers.device.reserve(found.nbytes):
                flight.stage, flight.reserved = Stage.BUILDING, found.nbytes
                flight.roomed = now
                self._builds.submit(flight, partial(self._bring.build, found))
                continue
            error = self._no_room(flight, found.nbytes, now)
            if error is None:
                return
            yield self._failed(flight, error)

    def _no_room(self, flight: Flight, nbytes: int, now: float) -> PrefixUnavailable | None:
        """Why this load does not wait any longer, or None if it does."""
        device = self._tiers.device
        if nbytes > device.budget:
            return PrefixUnavailable(
                f"it takes {nbytes} bytes, the budget for all prefixes is {device.budget}; give "
                "the engine a larger one",
                code="prefix.over_budget",
            )
        if flight.asked and now - flight.since < self._limits.room:
            return None
        return PrefixUnavailable(
            f"it takes {nbytes} bytes, and of the budget of {device.budget} too much is in use by "
            f"{device.pinned} pinned and {len(device.listed)} listed prefixes",
            code="prefix.no_room",
            retry_after=self._limits.room,
        )

    def _take_built(self, now: float) -> Iterator[Landing]:
        for outcome in self._builds.collect(now):
            flight = outcome.ticket
            if self._flights.get(flight.digest) is not flight:
                continue
            built, found = outcome.result, flight.found
            if built is None or found is None:
                yield self._failed(flight, outcome.error or ValueError("a build gave nothing"))
                continue
            flight.built, flight.stage = built, Stage.PROOF
            flight.found = replace(found, tensors=built.host)  # lets go of the artifact's bytes

    def _prove(self, now: float) -> Iterator[Landing]:
        """Land what is built; at most one probe a step, because those who decode wait for it."""
        probed = False
        for flight in [f for f in self._flights.values() if f.stage is Stage.PROOF]:
            if flight.found is None or flight.built is None:
                continue
            try:
                if flight.digest not in self._proved:
                    if probed:
                        continue
                    probed = True
                    self._probe(flight.built.device, flight.found.manifest)
            except ForewordError as e:
                yield self._failed(flight, e)
            else:
                yield self._land(flight, flight.found, flight.built, now)

    def _probe(self, kv: PrefixKV, manifest: Manifest) -> None:
        try:
            check_probes(self._base, kv, manifest.probes)
        except ForewordError:
            raise
        except Exception as e:  # the model's own; the other requests must not feel it
            raise PrefixUnavailable(
                f"its probe could not be run here ({type(e).__name__} {str(e)[:200]!r})",
                code="prefix.probe_failed",
                retry_after=0.0,
            ) from e

    def _land(self, flight: Flight, found: Found, built: Built, now: float) -> Landing:
        del self._flights[flight.digest]
        self._remember_proof(flight.digest)
        manifest = found.manifest
        resident = Resident(
            flight.digest, manifest.name, manifest.version, built.device, found.nbytes,
            flight.load(now),
        )  # fmt: skip
        self._tiers.device.admit(resident, now + self._limits.grace if flight.asked else None)
        if self._tiers.host is not None:
            self._tiers.host.put(flight.digest, found.nbytes, HostCopy(manifest, built.host))
        self.by_source[flight.source] += 1
        return Landing(
            flight.digest,
            flight.asked,
            flight.source,
            name=manifest.name,
            nbytes=found.nbytes,
            phases=flight.phases(now),
        )

    def _remember_proof(self, digest: Digest) -> None:
        if len(self._proved) >= _MOST_PROVED:
            self._proved.clear()
        self._proved.add(digest)

    def _failed(self, flight: Flight, error: BaseException) -> Landing:
        del self._flights[flight.digest]
        self._tiers.device.give_back(flight.reserved)
        name = flight.found.manifest.name if flight.found else ""
        return Landing(flight.digest, flight.asked, flight.source, Failure.of(error), name)
