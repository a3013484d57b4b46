"""R30: more requests than can be answered, a server that is told to stop, and one that is killed."""

from __future__ import annotations

import json
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx2
import pytest

from tests.gateway.edge_server import until
from tests.reliability.open_loop import Crowd, Told
from tests.reliability.report import LONG, Goals
from tests.reliability.toy_server import PROMPT, Home, Process, free_port, home

pytestmark = pytest.mark.reliability("R30")

TENANTS = ("acme", "globex", "initech", "umbrella")
GREEDY = {"acme": 0.55, "globex": 0.15, "initech": 0.15, "umbrella": 0.15}
"""Shares of what is asked: at five times the capacity even the smallest is 0.75 of it."""
TOKENS, ROWS, PLACES = 240, 4, 16
"""Of an answer; answers at once; requests worked on at once."""
TIMES = 5
ROUNDS, RAMP, SECONDS = (24, 2.0, 6.0) if LONG else (2, 1.0, 2.0)
"""Many short rounds: a shared machine is now faster, now slower, by half and for minutes."""
GOODPUT, QUICK = (0.9, 0.020) if LONG else (0.3, 0.25)
"""A short run on a busy machine says little about speed, so its limits are wider."""
UNFAIR = 1.5
READY = 10.0 if LONG else 60.0
DEADLINE, LATE = 2.0, 1.0 if LONG else 4.0
GRACE = 1.0


@dataclass
class Ground:
    at: Home
    port: int

    def crowd(self, server: Process) -> Crowd:
        return Crowd(server.url, self.at.keys, {name: f"{name}/p" for name in TENANTS}, TOKENS)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with home(*TENANTS) as at:
        for tenant in TENANTS:
            at.publish(f"{tenant}/p")
        yield Ground(at, free_port())


def test_five_times_what_it_can_then_killed_and_told_to_stop(ground: Ground, goals: Goals) -> None:
    options = ("--set", f"embedded.most_running={ROWS}", "--set", f"edge.requests={PLACES}")
    with ground.at.process(ground.port, *options) as server:
        crowd = ground.crowd(server)
        crowd.wait_for_answers(1, 1.0)  # everybody's prefix is loaded
        rounds, told = _rounds(crowd)
        peak = statistics.median(each.peak for each in rounds)
        _overloaded(goals, told, rounds, peak)
        ground.at.publish("acme/other")  # what was used lately is written down with it
        _written_down(ground)
        server.send(signal.SIGKILL)
    slow = (
        "--set",
        "embedded.most_running=2",
        "--set",
        f"answer_seconds={DEADLINE}",
        "--grace",
        f"{GRACE}",
    )
    with ground.at.process(ground.port, *slow) as server:
        _restored(goals, server, ground.at)
        _nobody_waits_in_vain(goals, ground.crowd(server), peak)
        _let_out(goals, server)


@dataclass(frozen=True)
class Round:
    """Answers a second at its peak, and right afterwards under overload."""

    peak: float
    goodput: float


def _rounds(crowd: Crowd) -> tuple[list[Round], list[Told]]:
    """Both in turns, and all that was told under overload."""
    rounds, told = list[Round](), list[Told]()
    for _ in range(ROUNDS):
        peak = _rate(crowd.wait_for_answers(PLACES // len(TENANTS), RAMP + SECONDS))
        told += (came := crowd.keep_coming(TIMES * max(peak, 1.0), RAMP + SECONDS, GREEDY))
        rounds.append(Round(peak, _rate(came)))
    return rounds, told


def _rate(told: list[Told]) -> float:
    """While places are full: not before the first answers are there, nor after nobody comes any more."""
    began = min(each.at - each.seconds for each in told) + RAMP
    return sum(each.status == 200 and began <= each.at < began + SECONDS for each in told) / SECONDS


def _overloaded(goals: Goals, told: list[Told], rounds: list[Round], peak: float) -> None:
    answered = [each for each in told if each.status == 200]
    rejected = [each for each in told if each.status != 200]
    codes = Counter((each.status, each.code) for each in rejected)
    share = statistics.median(each.goodput / each.peak if each.peak else 0.0 for each in rounds)
    goals.goal(f"{TIMES} times the capacity of {peak:.1f} answers a second: share of it that is "
               f"answered, median of {ROUNDS} rounds, at least {GOODPUT}", value=share,
               passed=share >= GOODPUT, count=len(told))  # fmt: skip
    times = sorted(each.seconds for each in rejected)
    p99 = times[int(0.99 * (len(times) - 1))]
    said = ", ".join(code for _, code in codes)
    goals.goal(f"the others are told so ({said}); 99th percentile in seconds, "
               f"at most {QUICK}", value=p99, passed=p99 <= QUICK, count=len(rejected))  # fmt: skip
    goals.goal("with a status that says when to come again", value=str(sorted({s for s, _ in codes})),
               passed={s for s, _ in codes} <= {429, 503}, count=len(rejected))  # fmt: skip
    shares = Counter(each.tenant for each in answered)
    unfair = (
        max(shares.values()) / min(shares.values()) if len(shares) == len(TENANTS) else float("inf")
    )
    asked = Counter(each.tenant for each in told)
    greed = asked["acme"] / asked["globex"]
    if LONG:  # a few dozen answers are no shares yet
        goals.goal(f"one tenant asks {greed:.1f} times as much as another and gets at most {UNFAIR} "
                   "times as much", value=unfair, passed=unfair <= UNFAIR, count=len(answered))  # fmt: skip


def _residents(server: Process, at: Home) -> set[str]:
    admin = {"Authorization": f"Bearer {at.admin}"}
    got = httpx2.get(f"{server.admin_url}/admin/residents", headers=admin).json()
    return {each["digest"] for each in got["residents"]}


def _written_down(ground: Ground) -> None:
    """Until what is in use is in the known good file."""
    file = ground.at.directory / "serve" / str(ground.port) / "known-good.jsonl"
    wanted = {str(ground.at.registry.resolve(f"{tenant}/p").digest) for tenant in TENANTS}

    def used() -> set[str]:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        return {digest for line in lines for digest in line.get("recent", ())}

    until(lambda: wanted <= used(), 60)


def _restored(goals: Goals, server: Process, at: Home) -> None:
    goals.goal(f"after kill -9 it is ready again within {READY:g} s", value=server.ready_in,
               passed=server.ready_in <= READY, count=1)  # fmt: skip
    wanted = {str(at.registry.resolve(f"{tenant}/p").digest) for tenant in TENANTS}
    end = time.monotonic() + 5
    while not wanted <= _residents(server, at) and time.monotonic() < end:
        time.sleep(0.05)
    there = len(wanted & _residents(server, at))
    goals.goal("what was in use before is loaded before anybody asks", value=there,
               passed=there == len(TENANTS), count=len(TENANTS))  # fmt: skip


def _nobody_waits_in_vain(goals: Goals, crowd: Crowd, peak: float) -> None:
    """Places for a thousand: the queue would grow for as long as they come, were it not for the deadline."""
    told = crowd.keep_coming(TIMES * peak, 2 * DEADLINE, dict.fromkeys(TENANTS, 1.0))
    longest = max(each.seconds for each in told)
    late = Counter(each.code for each in told if each.status == 504)
    goals.goal(f"a deadline of {DEADLINE:g} s and no limit to the queue: nobody waits {LATE:g} s longer",
               value=longest, passed=longest <= DEADLINE + LATE and late.total() > 0,
               count=len(told))  # fmt: skip


@dataclass(frozen=True)
class Ending:
    """How a stream ended."""

    done: bool
    error: str
    """Code of its error event; empty if there was none."""
    events: int


def _stream(server: Process, tokens: int) -> Ending:
    body = {"model": "acme/p", "prompt": PROMPT, "max_tokens": tokens, "stream": True}
    events, done, error = 0, False, ""
    try:
        with server.client.stream("POST", "/v1/completions", json=body) as got:
            if got.status_code != 200:
                return Ending(False, json.loads(got.read())["error"]["code"], 0)
            for line in got.iter_lines():
                events += line.startswith("data: {")
                done |= line == "data: [DONE]"
                if line.startswith("data: {") and '"error"' in line:
                    error = json.loads(line.removeprefix("data: "))["error"]["code"]
    except httpx2.HTTPError:
        pass  # cut: neither done nor an error
    return Ending(done, error, events)


def _let_out(goals: Goals, server: Process) -> None:
    with ThreadPoolExecutor(24) as pool:
        short = [pool.submit(_stream, server, 20) for _ in range(2)]
        long = [pool.submit(_stream, server, 240) for _ in range(20)]
        time.sleep(0.5)
        server.running.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        late = server.ask("acme/p")
        endings = [each.result() for each in (*short, *long)]
    status = server.running.wait(30)
    cut = [each for each in endings if not each.done and not each.error]
    whole, told = sum(each.done for each in endings), [e.error for e in endings if e.error]
    goals.goal(f"SIGTERM: of {len(endings)} streams, those that are cut without a word", value=len(cut),
               passed=not cut and whole >= 2, count=len(endings))  # fmt: skip
    goals.goal(f"after the grace of {GRACE:g} s the rest has an error event ({', '.join(sorted(set(told)))})",
               value=len(told), passed=0 < len(told) < len(endings), count=len(endings))  # fmt: skip
    goals.goal("who comes meanwhile is told to ask another one", value=late.code,
               passed=late.code == "serving.draining" and late.retry_after <= 2, count=1)  # fmt: skip
    goals.goal("exit status", value=status, passed=status == 0, count=1)
