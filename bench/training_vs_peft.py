"""Training speed and peak memory against PEFT prefix tuning and PEFT LoRA r=8.

Every method does what its user would run: the same rows of E2E in the same batches of 8, forward,
backward, clip, AdamW step, float32. Speed is measured in one process, the methods taking turns on
each batch; the ratio is taken batch by batch. Memory is the peak resident size of a process of its
own that runs a few steps, once on E2E rows and once on long rows (4 x 512 tokens).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import harness
import peers
import torch
from torch.nn.utils import clip_grad_norm_

from foreword.artifact import PromptFormat
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import demo_base
from foreword.tuning.data import Example
from foreword.tuning.encoders import build_encoder
from foreword.tuning.gates import lean_gates
from foreword.tuning.memory import checkpointed
from foreword.tuning.objective import forward_backward
from foreword.tuning.recipe import PrefixSettings
from foreword.tuning.starts import make_start
from foreword.tuning.tokens import TokenRow, tokenize

LENGTH, BATCH = 16, 8
OURS = ("foreword", "foreword_checkpointing")
Step = Callable[[Sequence[TokenRow]], None]


def e2e_rows(base: BaseModel, count: int) -> list[TokenRow]:
    examples = [
        Example(prompt=f"{row['input']}\n", target=row["target"], source=f"row {i}", columns={})
        for i, row in enumerate(harness.read_rows("e2e/train.jsonl", count))
    ]
    return tokenize(base, examples, PromptFormat("template", "{input}\n"), LENGTH)


def long_rows(rows: Sequence[TokenRow], count: int, tokens: int) -> list[TokenRow]:
    """Rows of exactly `tokens` tokens, one quarter of them target, cut from the E2E text."""
    text = [t for row in rows for t in (*row.prompt, *row.target)]
    cut = tokens * 3 // 4
    starts = range(0, count * tokens, tokens)
    return [TokenRow(tuple(text[s : s + cut]), tuple(text[s + cut : s + tokens])) for s in starts]


def our_step(base: BaseModel, rows: Sequence[TokenRow]) -> Step:
    settings = PrefixSettings(length=LENGTH)
    start = make_start(base, settings, rows, seed=0)
    encoder = build_encoder(settings, start.prefix, start.scale)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)

    def step(batch: Sequence[TokenRow]) -> None:
        optimizer.zero_grad()
        with lean_gates(base):
            forward_backward(base, encoder(), batch, 1.0 / sum(len(r.target) for r in batch))
        clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()

    return step


def peer_step(method: str, directory: Path, pad: int) -> Step:
    model = peers.build(method, directory, LENGTH)
    parameters = peers.trainable(model)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)

    def step(batch: Sequence[TokenRow]) -> None:
        optimizer.zero_grad()
        model(**peers.collate(batch, pad)).loss.backward()
        clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def measure_speed(directory: Path, batches: int) -> dict[str, list[float]]:
    """Seconds per batch and method, batch by batch, after one warm-up batch each."""
    base = load_base(directory)
    rows = e2e_rows(base, BATCH * (batches + 1))
    pad = base.required_tokenizer().eos_token_id
    steps = {method: peer_step(method, directory, pad) for method in peers.METHODS}
    steps["foreword"] = our_step(base, rows)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(batches + 1):
        batch = rows[index * BATCH : (index + 1) * BATCH]
        for name in _turn(list(steps), index):
            began = time.perf_counter()
            steps[name](batch)
            if index:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def _turn(names: list[str], index: int) -> list[str]:
    """Another method goes first each time."""
    shift = index % len(names)
    return names[shift:] + names[:shift]


def peak_memory(method: str, directory: Path, rows: str) -> dict[str, float]:
    """Peak resident MB of a fresh process, and how much of it came after the model was loaded."""
    command = [sys.executable, __file__, "--worker", method, "--rows", rows, str(directory)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    return figures


def worker(method: str, directory: Path, kind: str) -> None:
    base = load_base(directory)
    rows = e2e_rows(base, 200)
    batches = [rows[i : i + BATCH] for i in range(0, 4 * BATCH, BATCH)]
    if kind == "long":
        batches = [long_rows(rows, 4, 512)] * 2
    if method in OURS:
        step = our_step(base, rows)
    else:
        pad = base.required_tokenizer().eos_token_id
        del base
        step = peer_step(method, directory, pad)
        base = None  # type: ignore[assignment]
    loaded = _peak_mb()
    if base is None:
        _run(step, batches)
    else:
        with checkpointed(base, method == "foreword_checkpointing"):
            _run(step, batches)
    print(json.dumps({"peak_mb": _peak_mb(), "loaded_mb": loaded}))


def _run(step: Step, batches: Sequence[Sequence[TokenRow]]) -> None:
    for batch in batches:
        step(batch)


def _peak_mb() -> float:
    """Peak of this very program; the kernel's other counter, maxrss, begins with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(quick: bool) -> harness.Result:
    directory = demo_base(print)
    seconds = measure_speed(directory, 6 if quick else 24)
    methods = (*peers.METHODS, *OURS)
    kinds = ("e2e", "long")
    memory: dict[str, dict[str, Any]] = {
        kind: {method: peak_memory(method, directory, kind) for method in methods} for kind in kinds
    }
    ratio = {m: harness.median_ratio(seconds[m], seconds["foreword"]) for m in peers.METHODS}

    def of(method: str, kind: str) -> float:
        return float(memory[kind][method]["peak_mb"] / memory[kind]["peft_prefix"]["peak_mb"])

    claims = [
        harness.Claim("examples/s against PEFT prefix tuning", ratio["peft_prefix"], 1.5, "higher", "x"),
        harness.Claim("examples/s against PEFT LoRA r=8", ratio["peft_lora_r8"], 1.0, "higher", "x"),
        harness.Claim("peak memory, 8 E2E rows", of("foreword", "e2e"), 0.75, "lower", "x PEFT"),
        harness.Claim("peak memory, 4 x 512 tokens", of("foreword", "long"), 0.75, "lower", "x PEFT"),
        harness.Claim(
            "peak memory with checkpointing, 4 x 512 tokens",
            of("foreword_checkpointing", "long"), 0.55, "lower", "x PEFT",
        ),
    ]  # fmt: skip
    raw = {
        "seconds_per_batch": seconds,
        "examples_per_second": {m: BATCH / statistics.median(s) for m, s in seconds.items()},
        "peak_memory": memory,
    }
    return harness.Result(claims, raw)


if __name__ == "__main__":
    if "--worker" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--worker")
        parser.add_argument("--rows")
        parser.add_argument("directory", type=Path)
        given = parser.parse_args()
        worker(given.worker, given.directory, given.rows)
    else:
        harness.main(measure)
