"""What the gateway costs, in figures: beside the bare engine, alone, from its start, and with many prefixes.

SmolLM2-135M in float32, prefixes of 16 virtual tokens. The gateway with everything it has (keys, router,
quotas, telemetry, edge) and the same engine in the same process without it are asked in turn, pair by
pair, with prompts nobody has seen before. A client in another process waits for the gateway's answers over
a socket, so its own time is in the gateway's figures. Two answers of an engine differ by more than the
gateway takes, so the overhead of a request is told from that request itself: all its time, less that in
which the gateway waited for the engine. Whether it also slows the engine down is told by the pairs.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import harness
from gateway_client import Connection, Timed, as_many_as_go, at_once, chat
from gateway_home import LENGTH, Home, make_home
from harness import Claim, Result
from serving_sides import Side

from foreword.cli.output import quiet_libraries
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import demo_base

HERE = Path(__file__).parent
FEW = 8
"""Prefixes that are asked for in turn."""
AT_ONCE = 16
WORDS = [
    "order", "tent", "refund", "when", "where", "please", "broken", "late", "price", "help",
    "return", "box", "blue", "shoes", "card", "paid", "again", "never", "came", "two",
]  # fmt: skip
PAUSE = 0.02


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    pairs: int
    """Of one request."""
    tokens: int
    rounds: int
    """Of streams."""
    seconds: float
    """Of load."""
    starts: int
    many: int
    """Prefixes that are resident at the same time."""


FULL = Plan(pairs=200, tokens=64, rounds=24, seconds=15, starts=3, many=1_000)
QUICK = Plan(pairs=60, tokens=32, rounds=10, seconds=4, starts=1, many=100)


@dataclass(frozen=True)
class Pair:
    """The same work on both sides: seconds of each request, and what the server saw of the gateway's."""

    gateway: list[Timed]
    bare: list[Timed]
    seen: list[tuple[float, list[float]]]
    """Seconds the gateway waited for the engine, and seconds it was busy with each chunk."""


class Asker:
    """Both ways to one engine; every text is new."""

    def __init__(self, side: Side, home: Home) -> None:
        self._side, self._home = side, home
        self._url = str(side.do("where"))
        self._draw = random.Random(0)
        self._turn = 0

    def pair(self, size: int, tokens: int, *, stream: bool) -> Pair:
        """One of each; every other pair begins with the other side."""
        self._turn += 1
        name = self._home.names[self._turn % len(self._home.names)]
        first = self._bare(name, size, tokens) if self._turn % 2 else None
        gateway = self._gateway(name, size, tokens, stream=stream)
        bare = first or self._bare(name, size, tokens)
        return Pair(gateway, bare, self._side.do("seen"))

    def _gateway(self, name: str, size: int, tokens: int, *, stream: bool) -> list[Timed]:
        bodies = [chat(name, text, tokens, stream=stream) for text in self._texts(size)]
        time.sleep(PAUSE)
        return asyncio.run(at_once(self._url, self._home.key, bodies))

    def _bare(self, name: str, size: int, tokens: int) -> list[Timed]:
        time.sleep(PAUSE)
        said = self._side.do("bare", name=name, texts=self._texts(size), tokens=tokens)
        return [Timed(**each) for each in said]

    def _texts(self, size: int) -> list[str]:
        return [" ".join(self._draw.choices(WORDS, k=24)) for _ in range(size)]


def measure(quick: bool) -> Result:
    quiet_libraries()
    plan = QUICK if quick else FULL
    directory = demo_base(print)
    with tempfile.TemporaryDirectory(prefix="foreword-bench-") as scratch:
        few, many = Path(scratch) / "few", Path(scratch) / "many"
        base = load_base(directory)
        os.environ["FOREWORD_HOME"] = str(few)
        load_base(directory)  # its fingerprint is known from now on, as on a machine that was used
        home = make_home(few, base, FEW)
        with sides(directory, few, home) as (engine, instant, plain):
            overhead = said("beside the bare engine", measure_overhead(Asker(engine, home), plan))
            alone = said("alone", measure_alone(instant, plain, home, plan))
        started = said("from its start", measure_start(directory, home, plan))
        memory = said("with many prefixes", measure_memory(directory, many, base, plan))
    raw = {"overhead": overhead, "alone": alone, "start": started, "memory": memory}
    return Result(claims(raw), {"plan": asdict(plan), **raw})


def said(what: str, figures: dict[str, Any]) -> dict[str, Any]:
    """The same figures, told on the way."""
    print(f"{what}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    return figures


@contextmanager
def sides(base: Path, scratch: Path, home: Home) -> Iterator[tuple[Side, Side, Side]]:
    """A server with the engine, one whose backend costs nothing, and plain uvicorn; one works at a time."""
    engine = side("engine", base, scratch)
    instant = side("instant", base, scratch, "--instant")
    plain = side("plain", base, scratch, "--plain")
    try:
        engine.do("prefetch", most=len(home.names))
        engine.do("residents", wait_for=len(home.names))
        yield engine, instant, plain
    finally:
        for each in (engine, instant, plain):
            each.close()


def side(name: str, base: Path, scratch: Path, *options: str) -> Side:
    command = [sys.executable, str(HERE / "gateway_side.py"), str(base), str(scratch), *options]
    log = scratch / f"{name}.log"
    return Side(name, command, 1, log, FOREWORD_HOME=os.environ["FOREWORD_HOME"])


# Beside the bare engine.


def measure_overhead(asker: Asker, plan: Plan) -> dict[str, Any]:
    """One request with one token, and what each further token of one stream and of several costs."""
    asker.pair(1, 1, stream=False)
    ones = [asker.pair(1, 1, stream=False) for _ in range(plan.pairs)]
    found: dict[str, Any] = {"request": _request_figures(ones)}
    for size in (1, AT_ONCE):
        asker.pair(size, plan.tokens, stream=True)
        count = plan.rounds if size == 1 else max(3, plan.rounds // 3)
        rounds = [asker.pair(size, plan.tokens, stream=True) for _ in range(count)]
        found[f"token_{size}"] = _token_figures(rounds, plan.tokens)
    return found


def _request_figures(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Milliseconds. The overhead of a request is its time less what the gateway waited for the engine."""
    gateway = [1e3 * pair.gateway[0].seconds for pair in pairs]
    bare = [1e3 * pair.bare[0].seconds for pair in pairs]
    waited = [1e3 * pair.seen[0][0] for pair in pairs]
    return {
        "overhead_ms": _spread([a - b for a, b in zip(gateway, waited, strict=True)]),
        "gateway_ms": _spread(gateway),
        "bare_ms": _spread(bare),
        "slower_than_bare_ms": statistics.median(a - b for a, b in zip(gateway, bare, strict=True)),
        "pairs": len(pairs),
    }


def _token_figures(pairs: Sequence[Pair], tokens: int) -> dict[str, Any]:
    """Microseconds for each token after the first. The overhead is the time from the engine's chunk until
    the gateway has written it to the socket and asks for the next."""

    def each(side: Callable[[Pair], list[Timed]]) -> list[float]:
        return [
            1e6 * statistics.fmean(one.seconds - one.first for one in side(pair)) / (tokens - 1)
            for pair in pairs
        ]

    gateway, bare = each(lambda pair: pair.gateway), each(lambda pair: pair.bare)
    held = [1e6 * busy for pair in pairs for _, chunks in pair.seen for busy in chunks[1:]]
    return {
        "overhead_us": _spread(held),
        "gateway_us": _spread(gateway),
        "bare_us": _spread(bare),
        "slower_than_bare_us": statistics.median(a - b for a, b in zip(gateway, bare, strict=True)),
        "rounds": len(pairs),
    }


# Alone.


def measure_alone(instant: Side, plain: Side, home: Home, plan: Plan) -> dict[str, Any]:
    """The gateway in front of a backend that costs nothing; beside it, what uvicorn takes by itself."""
    url = str(instant.do("where"))
    whole = [chat(name, " ".join(WORDS), 1, stream=False) for name in home.names]
    streams = [chat(name, " ".join(WORDS), 64, stream=True) for name in home.names]
    latency, least = list[float](), list[float]()
    for _ in range(10):
        latency += asyncio.run(_one_by_one(url, home.key, whole, plan.pairs // 5))
        least += asyncio.run(_one_by_one(str(plain.do("where")), home.key, whole, plan.pairs // 5))
    rested = asyncio.run(_one_by_one(url, home.key, whole, plan.pairs, PAUSE))
    least_rested = asyncio.run(
        _one_by_one(str(plain.do("where")), home.key, whole, plan.pairs, PAUSE)
    )
    loaded = _loaded(instant, url, home.key, whole, plan.seconds)
    streamed = _loaded(instant, url, home.key, streams, plan.seconds)
    return {
        "latency_ms": _spread([1e3 * each for each in latency]),
        "plain_uvicorn_ms": _spread([1e3 * each for each in least]),
        "after_a_pause_ms": _spread([1e3 * each for each in rested]),
        "plain_uvicorn_after_a_pause_ms": _spread([1e3 * each for each in least_rested]),
        "pause_ms": 1e3 * PAUSE,
        "requests_per_second": loaded["requests"] / loaded["seconds"],
        "ms_per_request": 1e3 * loaded["cpu_seconds"] / loaded["requests"],
        "tokens_per_second": 64 * streamed["requests"] / streamed["seconds"],
        "us_per_token": 1e6 * streamed["cpu_seconds"] / (64 * streamed["requests"]),
        "client_cores": loaded["client_cores"],
        "at_once": AT_ONCE,
    }


async def _one_by_one(
    url: str, key: str, bodies: Sequence[dict[str, Any]], count: int, pause: float = 0.0
) -> list[float]:
    """Seconds of each, the next one `pause` seconds after the last."""
    found = list[float]()
    async with Connection(url, key) as connection:
        await connection.ask(bodies[0])
        for turn in range(count):
            await asyncio.sleep(pause)
            found.append((await connection.ask(bodies[turn % len(bodies)])).seconds)
    return found


def _loaded(
    instant: Side, url: str, key: str, bodies: Sequence[dict[str, Any]], seconds: float
) -> dict[str, float]:
    asyncio.run(as_many_as_go(url, key, bodies, AT_ONCE, 0.5))
    before, own = float(instant.do("cpu_seconds")), time.process_time()
    done, took = asyncio.run(as_many_as_go(url, key, bodies, AT_ONCE, seconds))
    return {
        "requests": len(done),
        "seconds": took,
        "cpu_seconds": float(instant.do("cpu_seconds")) - before,
        "client_cores": (time.process_time() - own) / took,
    }


# From its start.


def measure_start(base: Path, home: Home, plan: Plan) -> dict[str, Any]:
    """`foreword serve`, from the command to its first answer; files are in the page cache."""
    _start(base, home)
    listens, answers = zip(*(_start(base, home) for _ in range(plan.starts)), strict=True)
    return {"listens_seconds": list(listens), "answers_seconds": list(answers)}


def _start(base: Path, home: Home) -> tuple[float, float]:
    command = [sys.executable, "-c", "from foreword.cli.main import main; main()", "serve",
               "--base", str(base), "--port", "0", "--admin-port", "0"]  # fmt: skip
    began = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = _url(server)
            listens = time.perf_counter() - began
            body = chat(home.names[0], " ".join(WORDS), 1, stream=False)
            asyncio.run(at_once(url, home.key, [body]))
            return listens, time.perf_counter() - began
        finally:
            server.terminate()


def _url(server: subprocess.Popen[str]) -> str:
    said = []
    for line in server.stderr or ():
        said.append(line)
        if found := re.search(r"at (http://\S+)/v1$", line.strip()):
            return found[1]
    raise RuntimeError(f"the server did not start: {''.join(said)}")


# With many prefixes.


def measure_memory(directory: Path, scratch: Path, base: BaseModel, plan: Plan) -> dict[str, Any]:
    """Resident memory of one server before and after its prefixes are loaded."""
    os.environ["FOREWORD_HOME"] = str(scratch)
    load_base(directory)
    home = make_home(scratch, base, plan.many)
    nbytes = LENGTH * base.geometry.values_per_token() * 4
    server = side("many", directory, scratch)
    try:
        # What the first loads need besides, such as the proof on this base, is there from now on.
        server.do("prefetch", most=FEW)
        before_count, before = int(server.do("residents", wait_for=FEW)), server.resident_mb()
        began = time.perf_counter()
        server.do("prefetch", most=len(home.names))
        count = int(server.do("residents", wait_for=len(home.names)))
        seconds, after = time.perf_counter() - began, server.resident_mb()
    finally:
        server.close()
    grown = (after - before) * 2**20 / max(1, count - before_count)
    return {
        "prefixes": count,
        "resident_before": before_count,
        "bytes_each": nbytes,
        "mb_before": before,
        "mb_after": after,
        "memory_over_bytes": grown / nbytes,
        "load_seconds": seconds,
    }


def claims(raw: dict[str, Any]) -> list[Claim]:
    request, token = raw["overhead"]["request"], raw["overhead"]["token_1"]
    memory = raw["memory"]
    return [
        Claim("overhead of a request, p50", request["overhead_ms"]["p50"], 2, "lower", "ms"),
        Claim("overhead of a request, p99", request["overhead_ms"]["p99"], 2, "lower", "ms"),
        Claim("overhead of a token, p50", token["overhead_us"]["p50"], 50, "lower", "us"),
        Claim("overhead of a token, p99", token["overhead_us"]["p99"], 50, "lower", "us"),
        Claim("processor time of the gateway per token", raw["alone"]["us_per_token"], 50, "lower", "us"),
        Claim("latency of the gateway alone, p99", raw["alone"]["latency_ms"]["p99"], 2, "lower", "ms"),
        Claim("requests/s of the gateway alone", raw["alone"]["requests_per_second"], 500, "higher", "1/s"),
        Claim("cold start to the first answer", statistics.median(raw["start"]["answers_seconds"]), 10,
              "lower", "s"),
        Claim(f"memory of {memory['prefixes']} resident prefixes over their bytes",
              memory["memory_over_bytes"], 1.25, "lower", "x"),
    ]  # fmt: skip


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"p50": _quantile(values, 0.5), "p99": _quantile(values, 0.99), "max": max(values)}


def _quantile(values: Sequence[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, round(share * (len(ranked) - 1)))]


if __name__ == "__main__":
    harness.main(measure)
