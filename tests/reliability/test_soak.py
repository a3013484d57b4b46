"""R32: a day's requests in twenty minutes, with everything that goes wrong in a day; nothing may grow."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.reliability.marked import FIRST
from tests.reliability.report import LONG, Goals
from tests.reliability.theil_sen import Slope, slope
from tests.reliability.toy_server import (
    PREFIX_BYTES,
    PROMPT,
    Home,
    Process,
    free_port,
    home,
    markers_of,
)

pytestmark = pytest.mark.reliability("R32")

SECONDS, RATE = (1_200.0, 144.0) if LONG else (6.0, 40.0)
WARM = 300.0 if LONG else 1.0
"""Seconds until it counts: caches fill first."""
CANCELLED, BROKEN = 0.10, 0.05
PROMOTE_EVERY, FAULT_EVERY, FAULT = (10.0, 60.0, 5.0) if LONG else (1.5, 3.0, 0.5)
"""Seconds between promotions, between faults of the store, and how long one lasts."""
NAMES, ROOM = 30, 10
SAMPLE = 1.0 if LONG else 0.25
RSS_MOST = 0.05
"""MiB a minute, the upper bound of the 95 % interval."""
WAL_MOST = 64
CONNECTIONS = 64
IDLE = 2.0
"""Seconds after which the server closes a connection that nobody uses; its client does so before."""


@dataclass
class Traffic:
    """Requests at a steady pace; each is answered by a version that was released while it was under way."""

    server: Process
    at: Home
    released: dict[str, list[int]]
    """By name, the markers of all versions so far."""
    rng: random.Random = field(default_factory=lambda: random.Random(32))
    counts: Counter[str] = field(default_factory=Counter)
    times: list[tuple[float, float]] = field(default_factory=list)
    """When a whole answer was there, and how long it took."""
    wrong: list[str] = field(default_factory=list)
    late: float = 0.0
    """The most seconds by which a request left after its time."""

    async def run(self, client: httpx2.AsyncClient, seconds: float) -> None:
        began, number, tasks = time.monotonic(), 0, set[asyncio.Task[None]]()
        while (due := began + number / RATE) < began + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.late = max(self.late, time.monotonic() - due)
            task = asyncio.create_task(self._one(client))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.gather(*tasks)

    async def _one(self, client: httpx2.AsyncClient) -> None:
        name, draw = f"acme/p{self.rng.randrange(NAMES)}", self.rng.random()
        try:
            if draw < CANCELLED:
                await self._go_away(client, name)
            elif draw < CANCELLED + BROKEN:
                await self._broken(client, name)
            else:
                await self._whole(client, name)
        except httpx2.HTTPError as error:
            self.counts[f"lost: {type(error).__name__}"] += 1

    async def _whole(self, client: httpx2.AsyncClient, name: str) -> None:
        began, known = time.monotonic(), len(self.released[name])
        got = await client.post("/v1/completions", json=_body(name, 4))
        self.counts[str(got.status_code)] += 1
        if got.status_code != 200:
            code = got.json()["error"]["code"]
            self.counts[code] += 1
            return
        now = time.monotonic()
        self.times.append((now, now - began))
        markers = markers_of(got.json()["choices"][0]["text"])
        if not markers <= set(self.released[name][max(0, known - 2) :]) or len(markers) != 1:
            self.wrong.append(f"{name} {markers}")

    async def _go_away(self, client: httpx2.AsyncClient, name: str) -> None:
        body = {**_body(name, 200), "stream": True}
        async with client.stream("POST", "/v1/completions", json=body) as got:
            async for _ in got.aiter_bytes():
                self.counts["went away"] += 1
                return

    async def _broken(self, client: httpx2.AsyncClient, name: str) -> None:
        body = (
            {**_body(name, 4), "max_tokens": -1}
            if self.rng.random() < 0.5
            else _body(f"{name}x", 4)
        )
        got = await client.post("/v1/completions", json=body)
        self.counts["refused" if got.status_code in (400, 404) else f"odd {got.status_code}"] += 1


def _body(name: str, tokens: int) -> dict[str, Any]:
    return {"model": name, "prompt": PROMPT, "max_tokens": tokens}


@dataclass(frozen=True)
class Sample:
    """What the server holds at a moment."""

    at: float
    rss: float
    """MiB."""
    descriptors: int
    threads: int
    running: float
    waiting: float
    streams: float
    pins: int
    """Of prefixes by running requests."""
    wal: float
    """MiB of SQLite's log."""
    drafts: int
    """Files of writes that are not done."""


@dataclass
class Watch:
    server: Process
    at: Home
    samples: list[Sample] = field(default_factory=list)

    async def run(self, client: httpx2.AsyncClient) -> None:
        while True:
            await asyncio.sleep(SAMPLE)
            self.samples.append(await self.look(client))

    async def look(self, client: httpx2.AsyncClient) -> Sample:
        page = (await client.get(f"{self.server.admin_url}/metrics")).text
        admin = {"Authorization": f"Bearer {self.at.admin}"}
        seen = await client.get(f"{self.server.admin_url}/admin/residents", headers=admin)
        pins = sum(each["pins"] for each in seen.json()["residents"])
        process = psutil.Process(self.server.running.pid)
        with process.oneshot():
            rss, fds, threads = process.memory_info().rss, process.num_fds(), process.num_threads()
        wal = self.at.directory / "registry" / "journal.db-wal"
        serve = self.at.directory / "serve"
        return Sample(
            time.monotonic(), rss / 2**20, fds, threads,
            _gauge(page, "prefix_requests_running"), _gauge(page, "prefix_requests_waiting"),
            _gauge(page, "prefix_streams"), pins, wal.stat().st_size / 2**20 if wal.exists() else 0.0,
            sum(name.startswith(".") for _, folders, files in os.walk(serve) for name in (*folders, *files)),
        )  # fmt: skip


def _gauge(page: str, name: str) -> float:
    lines = [line for line in page.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    if not lines:
        raise KeyError(f"{name} is not on the page")
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def _promote(at: Home, released: dict[str, list[int]], counts: Counter[str]) -> None:
    """New versions take turns; a promotion that the store's fault refuses is tried again later."""
    number = 0
    while True:
        await asyncio.sleep(PROMOTE_EVERY)
        name = f"acme/p{number % NAMES}"
        try:
            # Known before it takes effect: an answer may come from it at once.
            released[name].append(FIRST + at.published + 1)
            await asyncio.to_thread(at.publish, name)
            counts["promoted"] += 1
            number += 1
        except Exception as error:
            counts[f"not promoted: {type(error).__name__}"] += 1


async def _break_the_store(blobs: Path, counts: Counter[str]) -> None:
    """The directory of all blobs is gone for a while."""
    hidden = blobs.with_name("gone")
    while True:
        await asyncio.sleep(FAULT_EVERY - FAULT)
        blobs.rename(hidden)
        counts["store gone"] += 1
        try:
            await asyncio.sleep(FAULT)
        finally:
            hidden.rename(blobs)


async def _soak(traffic: Traffic, watch: Watch) -> Sample:
    at, server = traffic.at, traffic.server
    limits = httpx2.Limits(
        max_connections=CONNECTIONS,
        max_keepalive_connections=CONNECTIONS,
        keepalive_expiry=IDLE / 3,
    )
    async with httpx2.AsyncClient(
        base_url=server.url, headers={"Authorization": f"Bearer {server.key}"}, timeout=60.0,
        limits=limits, trust_env=False,
    ) as client:  # fmt: skip
        beside = [
            asyncio.create_task(each)
            for each in (
                watch.run(client),
                _promote(at, traffic.released, traffic.counts),
                _break_the_store(at.directory / "registry" / "blobs", traffic.counts),
            )
        ]
        await traffic.run(client, SECONDS)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    async with httpx2.AsyncClient(base_url=server.url, trust_env=False) as client:
        await asyncio.sleep(IDLE + 1.0)
        return await watch.look(client)


@pytest.fixture(autouse=True)
def _no_collections() -> Iterator[None]:
    """A collection of all this process has kept of the answers would look like a slow server."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def at() -> Iterator[Home]:
    with home() as made:
        for number in range(NAMES):
            made.publish(f"acme/p{number}")
        yield made


def test_a_day_of_everything_leaves_nothing_behind(at: Home, goals: Goals) -> None:
    released = {name: [marker] for name, marker in at.markers.items()}
    room = ("--set", f"embedded.prefix_bytes={ROOM * PREFIX_BYTES}")
    with at.process(free_port(), *room, "--set", f"edge.idle_seconds={IDLE}") as server:
        server.ask_all(sorted(released))
        traffic, watch = Traffic(server, at, released), Watch(server, at)
        before = asyncio.run(_before(watch))
        after = asyncio.run(_soak(traffic, watch))
    _answers(goals, traffic)
    _what_is_left(goals, before, after, watch.samples)
    if LONG:
        _slopes(goals, watch.samples, traffic)


async def _before(watch: Watch) -> Sample:
    # A connection that is still open would hide one that is left behind.
    await asyncio.sleep(IDLE + 1.0)
    async with httpx2.AsyncClient(base_url=watch.server.url, trust_env=False) as client:
        return await watch.look(client)


def _answers(goals: Goals, traffic: Traffic) -> None:
    counts, asked = traffic.counts, round(SECONDS * RATE)
    goals.goal("answered by a version that was not released then, or by the bare model",
               value=len(traffic.wrong), passed=not traffic.wrong and counts["200"] > 0,
               count=counts["200"])  # fmt: skip
    allowed = {"200", "503", "went away", "refused", "promoted", "store gone", "prefix.fetch_failed",
               "prefix.fetch_timeout"}  # fmt: skip
    odd = {
        each: n
        for each, n in counts.items()
        if each not in allowed and not each.startswith("not promoted")
    }
    goals.goal(f"of {asked:,} requests ({counts['went away']:,} went away, {counts['refused']:,} were wrong, "
               f"{counts['503']:,} met a store that was gone), {counts['promoted']} promotions, "
               f"{counts['store gone']} faults: anything that should not be ({odd})", value=sum(odd.values()),
               passed=not odd, count=asked)  # fmt: skip


def _what_is_left(goals: Goals, before: Sample, after: Sample, samples: list[Sample]) -> None:
    busy = max(sample.running for sample in samples)
    left = after.running + after.waiting + after.streams + after.pins + after.drafts
    goals.goal(f"requests, streams, pins and drafts that are left behind (at most {busy:g} ran at once)",
               value=left, passed=left == 0 and busy > 0, count=len(samples))  # fmt: skip
    goals.goal("descriptors more than before", value=after.descriptors - before.descriptors,
               passed=after.descriptors - before.descriptors <= 8, count=len(samples))  # fmt: skip
    # Threads for fetches and reads are kept once they were needed: at most 8 and 2.
    goals.goal("threads more than before", value=after.threads - before.threads,
               passed=after.threads - before.threads <= 12, count=len(samples))  # fmt: skip
    wal = max(sample.wal for sample in samples)
    goals.goal(
        f"SQLite's log in MiB, at most {WAL_MOST}",
        value=wal,
        passed=wal <= WAL_MOST,
        count=len(samples),
    )


def _slopes(goals: Goals, samples: list[Sample], traffic: Traffic) -> None:
    began = samples[0].at
    counted = [sample for sample in samples if sample.at - began >= WARM]
    minutes = [(sample.at - began) / 60 for sample in counted]
    found: dict[str, Slope] = {
        what: slope(minutes, [getattr(sample, what) for sample in counted])
        for what in ("rss", "descriptors", "threads", "running", "pins", "drafts")
    }
    rss = f"{found['rss'].median:.3g} from minute {WARM / 60:g} on"
    goals.goal(f"memory in MiB a minute (Theil-Sen {rss}), upper bound, at most {RSS_MOST}",
               value=found["rss"].upper,
               passed=found["rss"].upper <= RSS_MOST, count=len(counted))  # fmt: skip
    for what in ("descriptors", "threads", "running", "pins", "drafts"):
        # They go up and down all the time: it counts if they surely grow, and by more than one in all.
        grows = found[what].lower > 0 and found[what].median * minutes[-1] > 1
        goals.goal(f"{what} do not grow (median slope a minute)", value=found[what].median,
                   passed=not grows, count=len(counted))  # fmt: skip
    quarter = SECONDS / 4
    second, last = (_p99(traffic, began + place * quarter, quarter) for place in (1, 3))
    goals.goal("the 99th percentile of the last quarter is at most 1.1 times that of the second "
               f"({second:.3g} s)", value=last / second, passed=last <= 1.1 * second,
               count=len(traffic.times))  # fmt: skip
    goals.goal("they came in time: the most seconds by which one left too late", value=traffic.late,
               passed=traffic.late <= 5.0, count=len(traffic.times))  # fmt: skip


def _p99(traffic: Traffic, begin: float, seconds: float) -> float:
    times = sorted(took for at, took in traffic.times if begin <= at < begin + seconds)
    return times[int(0.99 * (len(times) - 1))]


def test_a_leak_is_found_out(goals: Goals) -> None:
    """A tenth of a MiB a minute under ten times as much noise, and none."""
    rng = random.Random(32)
    minutes = [number / 60 for number in range(900)]
    noise = [rng.gauss(0.0, 0.3) for _ in minutes]
    leak = slope(minutes, [300 + 0.1 * at + off for at, off in zip(minutes, noise, strict=True)])
    none = slope(minutes, [300 + off for off in noise])
    goals.goal(f"upper bound with a leak of 0.1 MiB a minute, over {RSS_MOST}", value=leak.upper,
               passed=leak.upper > RSS_MOST and leak.lower > 0, count=len(minutes))  # fmt: skip
    goals.goal(f"upper bound without one, at most {RSS_MOST}", value=none.upper,
               passed=none.upper <= RSS_MOST, count=len(minutes))  # fmt: skip
    assert statistics.stdev(noise) > 0.2
