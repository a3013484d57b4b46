"""An engine on the toy, everything that may happen to it, and the oracle that watches.

Each action takes its choices from the generator it is given, so that a seed or hypothesis can drive it.
After every step all bytes, rows and pins are added up, and what nobody may read is poisoned.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

import pytest

from foreword.artifact import Digest
from foreword.errors import ForewordError, Overloaded
from foreword.prefix.base_model import BaseModel
from foreword.serving.contract import AdapterSet, GenerateRequest
from foreword.serving.engine.engine import Engine, EngineSettings
from foreword.serving.engine.residency.store import BreakerRules, Budgets, LoadLimits, PrefixStore
from foreword.serving.engine.residency.tiers import DiskTier
from foreword.serving.engine.reuse.chains import links
from foreword.serving.engine.waiting.queue import Limits
from tests.registry.scratch import scratch
from tests.reliability.engine_faults import FAILED, NO_TOKEN, ONCE, ONE_REQUEST, EngineFaults
from tests.reliability.marked_source import FAULTS, LONGEST, Catalogue, Source
from tests.reliability.poison import poison
from tests.reliability.serving_oracle import Expected, Oracle, Tally
from tests.reliability.serving_traffic import Traffic
from tests.reliability.watched_sightings import watch

STEP = 0.002
"""Seconds of the engine's clock that a step takes."""
_PREFIX_BYTES = LONGEST * 2 * 2 * 16 * 4
"""Of the largest prefix: two layers, keys and values, 16 numbers each."""
_ROW_BYTES = 64 * 2 * 2 * 16 * 4
_MOST_STEPS = 50_000
_PATIENCE = 10.0


@dataclass(frozen=True)
class Size:
    """How large a world is."""

    names: int = 1000
    room: int = 32
    """Prefixes of the largest kind that fit the device; of all kinds about half as many again."""
    most_running: int = 64
    skew: float = 1.1


class World:
    """One engine with its store, disk and registry. `step` moves it; the rest happens to it."""

    def __init__(self, base: BaseModel, size: Size, seed: int) -> None:
        rng = random.Random(seed)
        self.catalogue = Catalogue(base, size.names, rng)
        self.source = Source(self.catalogue)
        self.traffic = Traffic(self.catalogue, size.skew, rng)
        self.tally = Tally()
        self.oracle = Oracle(self.tally, self._excused, self._mistaken)
        self.now = 1000.0
        self._woken, self._open = threading.Event(), ExitStack()
        patch = self._open.enter_context(pytest.MonkeyPatch.context())
        self._mistaken_links = watch(patch)
        self._disk = self._open.enter_context(scratch()) / "prefixes"
        disk = DiskTier(self._disk, size.names * 2000, self.source.reverify)
        self.store = PrefixStore(
            base, self.source, Budgets(size.room * _PREFIX_BYTES), disk=disk,
            limits=LoadLimits(load=120.0, fetch=120.0, room=1e6), rng=rng, woken=self._woken.set,
            rules=BreakerRules(pause=0.01, shortest=0.1, longest=0.4, permanent=0.2),
        )  # fmt: skip
        settings = EngineSettings(
            most_running=size.most_running, kv_bytes=3 * size.most_running * _ROW_BYTES // 2,
            prompt_cache_bytes=2**19, prompt_tokens=160, share_from=6,
            queue=Limits(total=600, per_tenant=300, starvation=0.2),
        )  # fmt: skip
        self.engine = Engine(base, self.store, settings)
        self.faults = EngineFaults(self.engine, self.source, patch)

    def __enter__(self) -> World:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.store.close()
        for thread in threading.enumerate():
            if thread.name.startswith("foreword-"):  # it may be writing where nothing will be soon
                thread.join(_PATIENCE)
        self._open.close()

    # Requests.

    def submit(self, rng: random.Random) -> None:
        self._submit(self.traffic.request(rng, self.now))

    def cancel(self, rng: random.Random) -> None:
        """Give up a live request; each state that one can be in gets its turn, also a rare one."""
        states: dict[str, list[str]] = {}
        for name in self.oracle.live:
            states.setdefault(self._state(name), []).append(name)
        if states:
            self._cancel(rng.choice(states[rng.choice(sorted(states))]))

    def cancel_and_ask_again(self, rng: random.Random) -> None:
        """The same request under the same id, before the engine could say that the first is over."""
        if self.oracle.live:
            name = rng.choice(list(self.oracle.live))
            request = self.oracle.live[name].request
            self._cancel(name)
            self._submit(request)

    def _cancel(self, name: str) -> None:
        self.oracle.live[name].excuses.add("serving.cancelled")
        self.tally.counts[f"cancelled while {self._state(name)}"] += 1
        self.engine.cancel(name)

    def _state(self, name: str) -> str:
        job = self.engine._jobs.get(name)
        if job is not None:
            return "prefilling" if job.prefilling else "decoding"
        digest = self.oracle.live[name].request.adapters.prefix
        return "loading" if digest is not None and digest in self.store._loads else "waiting"

    def _submit(self, request: GenerateRequest) -> None:
        digest = request.adapters.prefix
        try:
            self.engine.submit(request, self.now)
        except Overloaded:
            self.tally.counts["refused by a full queue"] += 1
        except ForewordError as error:
            if error.code == "request.id_in_use" and request.id in self.oracle.live:
                self.tally.counts["refused, its id is in use"] += 1
            elif request.deadline is None or self.now < request.deadline:
                self.tally.wrong("errors nobody caused", f"{request}: {error!r}")
        else:
            self.tally.counts["requests"] += 1
            there = digest is None or digest in self.catalogue.versions
            there = there and digest not in self.source.revoked
            self.oracle.expect(Expected(request, self.traffic.forced(request), there))

    # What happens to prefixes.

    def republish(self, rng: random.Random) -> None:
        """Other numbers under the same name; requests that wait or run keep what they asked for."""
        self.traffic.old.append(self.catalogue.republish(self.traffic.number(rng)))
        self.tally.counts["republished"] += 1

    def revoke(self, rng: random.Random) -> None:
        """Take a version back: who runs with it may end, nobody else gets it any more."""
        old = self.catalogue.republish(self.traffic.number(rng))
        self.traffic.old.append(old)
        self.source.revoke(old.digest)
        self.engine.forget(AdapterSet(old.digest), self.now)
        self.tally.counts["revoked"] += 1
        for name, expected in self.oracle.live.items():
            if expected.request.adapters.prefix == old.digest and name not in self.engine._jobs:
                expected.may_finish = False

    def forget(self, rng: random.Random) -> None:
        self.engine.forget(AdapterSet(self._some(rng)), self.now)

    def evict(self, rng: random.Random) -> None:
        digests = sorted(resident.digest.hex for resident in self.store._device.residents())
        if digests:
            self.tally.counts["evicted on demand"] += self.store.evict(Digest(rng.choice(digests)))

    def prefetch(self, rng: random.Random) -> None:
        self.store.prefetch([self._some(rng) for _ in range(3)], self.now)

    def pin_list(self, rng: random.Random) -> None:
        self.store.pin_list([self._some(rng) for _ in range(2)])

    def _some(self, rng: random.Random) -> Digest:
        return self.catalogue.current[self.traffic.number(rng)].digest

    # Failures.

    def break_fetch(self, rng: random.Random) -> None:
        self.source.order(self._some(rng), rng.choice(list(FAULTS)))

    def damage_disk(self, rng: random.Random) -> None:
        """Flip a bit of a copy that lies on the disk; nobody may ever see it."""
        files = sorted(self._disk.glob(f"{rng.randrange(256):02x}/*/*"))
        if not files:
            return
        path = rng.choice(files)
        try:
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
        except FileNotFoundError:  # the tier deleted it just now
            return
        self.tally.counts["copies damaged on disk"] += 1

    def break_engine(self, rng: random.Random) -> None:
        self.faults.order(rng.choice((*ONCE, *ONE_REQUEST)))

    def doom(self, rng: random.Random) -> None:
        """From now on a running request cannot be run, has no finite logits, or gets no token."""
        if not self.engine._jobs:
            return
        name = rng.choice(list(self.engine._jobs))
        faults = self.faults
        kinds = ((faults.doomed, FAILED), (faults.unlucky, NO_TOKEN), (faults.undecided, FAILED))
        group, code = rng.choice(kinds)
        group.add(name)
        self.oracle.live[name].excuses.add(code)

    def let_time_pass(self, rng: random.Random) -> None:
        self.now += rng.uniform(0.1, 3.0)

    # Steps.

    def step(self) -> None:
        self.now += STEP
        for event in self.engine.step(self.now):
            self.oracle.judge(event, self.now)
        self.tally.counts["steps"] += 1
        self.engine.check_integrity()
        for group in (self.faults.doomed, self.faults.unlucky, self.faults.undecided):
            group.intersection_update(self.oracle.live)
        poison(self.engine)

    def rest(self) -> None:
        """While nothing runs, let the loads get on."""
        if not self.engine._jobs and len(self.store._loads):
            self._woken.wait(0.005)
        self._woken.clear()

    def drain(self) -> None:
        """Let everything come to its end, and see that all of it was given back."""
        self.faults.ordered.clear()
        self.store.pin_list(())
        for _ in range(_MOST_STEPS):
            if not self.engine.busy:
                break
            self.step()
            self.rest()
        self._check_end()

    def _check_end(self) -> None:
        capacity, stats = self.engine.capacity(), self.store.stats()
        left = (len(self.oracle.live), capacity.running, capacity.waiting, stats.pinned)
        if any(left):
            self.tally.wrong("left behind", f"requests, rows, waiting, pins: {left}")
        self.tally.counts |= {f"loads from {k}": n for k, n in stats.loads.items()}
        self.tally.counts["evictions"] = stats.evictions
        self.tally.counts |= {f"fault: {k}": n for k, n in self.faults.happened.items()}
        self.engine.close()
        stats = self.store.stats()
        bytes_left = (stats.device_bytes, stats.reserved_bytes, stats.loading)
        if any(bytes_left):
            self.tally.wrong("left behind", f"bytes, reserved bytes, loads: {bytes_left}")

    def _excused(self, expected: Expected, code: str) -> bool:
        if code == FAILED and self.faults.ended_by_chance:
            self.faults.ended_by_chance -= 1
            return True
        digest = expected.request.adapters.prefix
        return digest is not None and code in self.source.refused[digest]

    def _mistaken(self, request: GenerateRequest, beginning: tuple[int, ...]) -> bool:
        base = self.engine._prompts.base
        chain = links(request.tenant, base, request.adapters, beginning)
        return chain[-1] in self._mistaken_links


RATES = {
    World.cancel: 0.3, World.cancel_and_ask_again: 0.02, World.republish: 0.03, World.revoke: 0.01,
    World.forget: 0.03, World.evict: 0.1, World.prefetch: 0.1, World.pin_list: 0.01,
    World.break_fetch: 0.04, World.damage_disk: 0.03, World.break_engine: 0.1, World.doom: 0.03,
    World.let_time_pass: 0.001,
}  # fmt: skip
"""How often each of them happens in a step."""


def drive(world: World, rng: random.Random, requests: int, trouble: float) -> Iterator[None]:
    """Let so many requests come, and everything else happen; one item for each step.

    `trouble` is how much more of everything else than in `RATES`.
    """
    for fault in ("resize", "resize half"):  # arenas grow most in the beginning
        world.faults.order(fault)
    while world.tally.counts["requests"] < requests:
        if world.tally.counts["steps"] % 200 == 0:
            at_once = rng.choice((20, 60, 150, 400))
        for _ in range(min(32, at_once - len(world.oracle.live))):
            world.submit(rng)
        for action, rate in RATES.items():
            if rng.random() < trouble * rate:
                action(world, rng)
        world.step()
        world.rest()
        yield


def run(base: BaseModel, size: Size, seed: int, requests: int, trouble: float) -> Tally:
    """All of so many requests to their end."""
    with World(base, size, seed) as world:
        for _ in drive(world, random.Random(seed), requests, trouble):
            pass
        world.drain()
        return world.tally
