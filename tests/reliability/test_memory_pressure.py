"""R29: with 20 times more prefixes than fit, every byte is accounted for and nobody runs out of memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from statistics import mean, median
from typing import Any

import pytest

from foreword.errors import PrefixUnavailable
from foreword.prefix import kv as kv_module
from foreword.prefix.base_model import BaseModel
from foreword.serving.engine.residency.store import Budgets, LoadLimits, PrefixStore
from tests.reliability.report import LONG, ROOT, Goals
from tests.serving.prefix_samples import Clock, Source, artifact, load, until, use
from tests.tiny import tiny_base

pytestmark = pytest.mark.reliability("R29")

PREFIXES, REQUESTS = (10_000, 100_000) if LONG else (1_500, 6_000)
NTH = 500 if LONG else 40
LENGTH = 8
SLOW = 50.0
"""Milliseconds; what a load may take at the 99th percentile."""


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return tiny_base()


@pytest.fixture(scope="module")
def source(base: BaseModel) -> Source:
    source = Source()
    source.add(*(artifact(base, number, length=LENGTH) for number in range(30)))
    return source


def one(base: BaseModel) -> int:
    return LENGTH * base.geometry.values_per_token() * 4


def alone(module: str, *arguments: int) -> dict[str, Any]:
    """What a driver saw in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.reliability.{module}", *map(str, arguments)],
        cwd=ROOT,
        # A second arena takes 64 MB of address space, which is what is limited here.
        env={**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def test_a_storm_over_twenty_times_the_budget(goals: Goals) -> None:
    seen = alone("prefix_storm", PREFIXES, REQUESTS)
    assert seen["limit_bites"], "all prefixes at once would have fitted, so nothing was proved"
    assert seen["loads"]["disk"] > 0
    goals.goal(f"{PREFIXES:,} prefixes, cache 5 %, hardly any memory beyond it: failed loads",
               value=seen["failures"], passed=seen["failures"] == 0, count=REQUESTS)  # fmt: skip
    goals.goal("accounted bytes are those of all tensors in the process, within 2 %",
               value=100 * seen["off_by"], passed=seen["off_by"] <= 0.02,
               count=seen["off_samples"])  # fmt: skip
    goals.goal("samples at which the cache was over its budget",
               value=seen["over_budget"], passed=seen["over_budget"] == 0, count=seen["samples"])  # fmt: skip
    goals.goal("pinned prefixes that were evicted or replaced",
               value=seen["moved_while_pinned"], passed=seen["moved_while_pinned"] == 0,
               count=seen["samples"])  # fmt: skip
    ours, ideal = 100 * mean(seen["hits"]), 100 * mean(seen["lru"])
    goals.goal(f"the hit rate is at least that of an ideal LRU ({ideal:.1f} %) less one point",
               value=ours, passed=ours >= ideal - 1.0, count=REQUESTS)  # fmt: skip
    # Once warm; against the LRU's own windows, because traffic itself is not equally kind in each.
    gaps = [100 * (mine - lru) for mine, lru in zip(seen["hits"][1:], seen["lru"][1:], strict=True)]
    goals.goal("no cliff: in no tenth of the requests the hit rate is more than a point below the LRU's",
               value=min(gaps), passed=min(gaps) >= -1.0, count=len(gaps))  # fmt: skip
    # Medians of windows: one in which the machine was busy elsewhere says nothing about the store.
    p99 = median(seen["p99"])
    goals.goal(f"the 99th percentile of a load, with its bytes verified, takes at most {SLOW:.0f} ms",
               value=p99, passed=p99 <= SLOW, count=sum(seen["loads"].values()))  # fmt: skip
    half = len(seen["p99"]) // 2
    early, late = median(seen["p99"][:half]), median(seen["p99"][half:])
    goals.goal(f"no cliff: in the second half it is at most twice as long ({early:.3g} ms)",
               value=late, passed=late <= 2 * max(early, 10.0),
               count=sum(seen["loads"].values()))  # fmt: skip


def test_a_budget_larger_than_the_memory_there_is(goals: Goals) -> None:
    seen = alone("prefix_memory")
    fine = (
        seen["refusal"] == "prefix.no_memory" and seen["reserved"] == 0 and seen["right and there"]
    )
    goals.goal("when the system itself has no memory left: a typed refusal, what is pinned stays right",
               value=str(seen["refusal"]), passed=fine and seen["pinned"] > 0,
               count=seen["pinned"])  # fmt: skip
    goals.goal("when requests have ended, the one that was refused is loaded",
               value=str(seen["again"]), passed=seen["again"], count=1)  # fmt: skip


def test_when_all_is_pinned_requests_are_refused_with_a_reason(
    base: BaseModel, source: Source, goals: Goals
) -> None:
    names, clock = list(source.known), Clock()
    store = PrefixStore(base, source, Budgets(10 * one(base)), limits=LoadLimits(room=0.2))
    pinned = [load(store, digest, clock) for digest in names[:10]]
    for resident in pinned:
        store.pin(resident)
    codes = []
    for digest in names[10:]:
        try:
            load(store, digest, clock)
        except PrefixUnavailable as e:
            codes.append((e.code, e.retry_after is not None and e.retry_after <= 2.0))
    kept = all(store.want(each.digest, clock.now) is each for each in pinned)
    goals.goal("all pinned: each other request gets a typed refusal and when to ask again",
               value=codes.count(("prefix.no_room", True)), count=len(names) - 10,
               passed=kept and codes == [("prefix.no_room", True)] * (len(names) - 10))  # fmt: skip
    for resident in pinned:
        store.unpin(resident)
    clock.pass_by(2.0)
    served = sum(use(store, digest, clock).digest == digest for digest in names)
    goals.goal("once they are unpinned everybody is served",
               value=served, passed=served == len(names), count=len(names))  # fmt: skip
    store.close()


@pytest.mark.parametrize("lasting", [False, True], ids=["one fails", "all fail from then on"])
def test_the_nth_allocation_fails(
    lasting: bool, base: BaseModel, source: Source, goals: Goals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again with the fault one allocation later, until a run meets none."""
    loads = NTH // 6 + 1  # six tensors each
    names = list(source.known)
    wrong, refusals, nth = [], 0, 0
    met = True
    while met:
        nth += 1
        failing = Failing(nth, lasting)
        monkeypatch.setattr(kv_module, "bytearray", failing, raising=False)
        clock, store = Clock(), PrefixStore(base, source, Budgets(4 * one(base)))
        for place in range(loads):
            try:
                use(store, names[place % len(names)], clock)
            except PrefixUnavailable as e:
                refusals += 1
                if e.code != "prefix.no_memory":
                    wrong.append(f"{nth}: {e.code}")
                break
        met = failing.failed > 0
        failing.lasting, failing.nth = False, 0
        clock.pass_by(2.0)
        until(store, clock, lambda store=store: store.stats().loading == 0)
        wrong += [f"{nth}: {d.short}" for d in names[:3] if use(store, d, clock).digest != d]
        stats = store.stats()
        if stats.reserved_bytes or stats.device_bytes > 4 * one(base):
            wrong.append(f"{nth}: {stats}")
        store.close()
    goals.goal(f"the Nth allocation ({'and all later ones' if lasting else 'alone'}) fails, N = 1 to "
               f"{nth - 1}: other than a typed refusal, a byte lost, or anybody not served afterwards",
               value="; ".join(wrong[:5]) or 0, passed=not wrong and (refusals > 0) == lasting,
               count=nth - 1)  # fmt: skip
    assert nth > NTH


class Failing:
    """Stands for `bytearray`, of which a prefix's tensors are made."""

    def __init__(self, nth: int, lasting: bool) -> None:
        self.nth, self.lasting = nth, lasting
        self.asked = self.failed = 0

    def __call__(self, data: memoryview) -> bytearray:
        self.asked += 1
        if self.asked == self.nth or (self.lasting and self.asked > self.nth):
            self.failed += 1
            raise MemoryError
        return bytearray(data)
