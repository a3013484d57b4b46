"""What makes a decode step fast: the ways to run one, taking turns on the same rows.

SmolLM2-135M in float32, rows with 64 tokens behind them. The first way is what the engine does; the others
each leave something out, or have torch.compile fuse what lies between the products.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import harness
import torch
from torch import Tensor
from torch.nn import functional as F

from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import demo_base
from foreword.serving.engine.model.attention import Piece, Step
from foreword.serving.engine.model.rows import RowPool
from foreword.serving.engine.model.runner import ModelRunner
from foreword.serving.engine.waiting.ledger import Ledger

PAST = 64
OURS = "written out + packed + compiled kernels"
Run = Callable[[Sequence[Piece]], Tensor]


def measure(quick: bool) -> harness.Result:
    base = load_base(demo_base(print))
    rounds, batches = (5, (1, 8)) if quick else (25, (1, 8, 32))
    ways = _ways(base)
    raw = {str(batch): _compare(base, ways, batch, rounds) for batch in batches}
    claims = [
        harness.Claim(f"{OURS} against {name} at {batch}", ratio, 1.0, "higher", "x")
        for batch, taken in raw.items() for name in ways if name != OURS
        for ratio in [harness.median_ratio(taken[name], taken[OURS])]
    ]  # fmt: skip
    medians = {
        batch: {name: 1e3 * statistics.median(seconds) for name, seconds in taken.items()}
        for batch, taken in raw.items()
    }
    return harness.Result(claims, {"median_ms": medians, "seconds": raw})


def _ways(base: BaseModel) -> dict[str, Run]:
    plain = ModelRunner(base, compiled=False)
    return {
        OURS: ModelRunner(base).run,
        "torch's operations between the products": plain.run,
        "torch.compile between the products": _compiled(plain, base),
        "own modules": ModelRunner(base, lean=False).run,
        "weights as they are": ModelRunner(base, pack=False).run,
        "nothing of these": ModelRunner(load_base(demo_base(print)), lean=False, pack=False,
                                        compiled=False).run,
    }  # fmt: skip


def _compare(
    base: BaseModel, ways: dict[str, Run], batch: int, rounds: int
) -> dict[str, list[float]]:
    layers = ModelRunner(base, pack=False).layers
    pool = RowPool(layers, base.dtype, base.device, Ledger(1 << 32), batch)
    rows = pool.reserve(2 * PAST, batch) or []
    pieces = [Piece(row, [1000 + i], PAST, None, False) for i, row in enumerate(rows)]
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        for _ in range(3):
            run(pieces)
    for _ in range(rounds):
        for name, run in ways.items():
            began = time.perf_counter()
            run(pieces)
            taken[name].append(time.perf_counter() - began)
    return taken


def _compiled(runner: ModelRunner, base: BaseModel) -> Run:
    """The written-out pass with norms, rotation and gate compiled; products and attention stay."""
    lean: Any = runner._lean
    norm = torch.compile(lambda x, w, eps: F.rms_norm(x, (x.shape[-1],), w, eps), dynamic=False)
    turn = torch.compile(
        lambda x, cos, sin: x * cos + x.roll(x.shape[-1] // 2, -1) * sin, dynamic=False
    )
    gate = torch.compile(lambda x: F.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1], dynamic=False)

    @torch.inference_mode()
    def run(pieces: Sequence[Piece]) -> Tensor:
        step = Step(pieces, base.device)
        x = F.embedding(step.ids, lean._embedding)
        cos, sin = lean._rotary(x[None], step.positions[None])
        half = sin.shape[-1] // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        for index, layer in enumerate(lean._layers):
            heads, kv = layer.heads
            before = layer.before_attention
            qkv = layer.qkv(norm(x, before.weight, before.eps)).view(x.shape[0], heads + 2 * kv, -1)
            turned = turn(qkv[:, : heads + kv], cos[0, :, None], sin[0, :, None])
            seen = step.attend(
                index, turned[:, :heads], turned[:, heads:], qkv[:, heads + kv :], layer.scoring
            )
            x = x + layer.out(seen.flatten(1))
            before = layer.before_mlp
            x = x + layer.down(gate(layer.gate_up(norm(x, before.weight, before.eps))))
        logits: Tensor = lean._head(norm(x[step.last], lean._norm.weight, lean._norm.eps))
        return logits.float()

    return run


if __name__ == "__main__":
    harness.main(measure)
