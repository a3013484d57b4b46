"""What this machine can do at best: products, bytes, and so the shortest step of a decoder.

A step of batch b needs `2 * b` floating-point operations for each weight of a matrix, a little for
attention, and has to read all weights and the keys and values of b contexts once. It cannot be shorter
than operations / peak, nor than bytes / bandwidth; both are measured here, with the threads the engine has.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SQUARE = 2048
READ_BYTES = 2**30
FLOAT = 4


@dataclass(frozen=True)
class Decoder:
    """The matrices of one decode step, `(rows, columns) -> how many`, and what attention needs."""

    matrices: Mapping[tuple[int, int], int]
    kv_bytes: int
    """Keys and values of one token, in all layers."""
    attention_flops: int
    """For one new token and one token of its context, in all layers."""

    @classmethod
    def of(cls, directory: Path) -> Decoder:
        """A Llama-like model, from its `config.json`."""
        config = json.loads((directory / "config.json").read_text())
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
        head = config.get("head_dim") or hidden // heads
        keys = config["num_key_value_heads"] * head
        matrices: dict[tuple[int, int], int] = {}
        for shape, count in (
            ((heads * head, hidden), layers), ((keys, hidden), 2 * layers),
            ((hidden, heads * head), layers), ((inner, hidden), 2 * layers),
            ((hidden, inner), layers), ((config["vocab_size"], hidden), 1),
        ):  # fmt: skip
            matrices[shape] = matrices.get(shape, 0) + count
        return cls(matrices, 2 * layers * keys * FLOAT, 4 * layers * heads * head)

    @property
    def weights(self) -> int:
        return sum(rows * columns * count for (rows, columns), count in self.matrices.items())

    def flops(self, batch: int, context: float) -> float:
        return batch * (2 * self.weights + self.attention_flops * context)

    def bytes(self, batch: int, context: float) -> float:
        return FLOAT * self.weights + batch * context * self.kv_bytes


@dataclass(frozen=True)
class Machine:
    """The best that was seen, and the products of a step at the machine's own speed."""

    flops: float
    """Floating-point operations per second: a large square product, or a step's, if that was faster."""
    bandwidth: float
    """Bytes read per second."""
    products: Mapping[int, Mapping[str, float]]
    """Batch -> seconds that all products of a step take: `linear`, and `packed` by oneDNN."""

    def step(self, decoder: Decoder, batch: int, context: float) -> float:
        """Seconds below which a step cannot be."""
        return max(
            decoder.flops(batch, context) / self.flops,
            decoder.bytes(batch, context) / self.bandwidth,
        )

    def best(self, other: Machine) -> Machine:
        """The better of two measurements: others may have used the machine during one of them."""
        return Machine(
            max(self.flops, other.flops),
            max(self.bandwidth, other.bandwidth),
            {
                batch: {kind: min(s, other.products[batch][kind]) for kind, s in seconds.items()}
                for batch, seconds in self.products.items()
            },
        )


def measure(decoder: Decoder, batches: tuple[int, ...], repeats: int) -> Machine:
    products = {batch: _products(decoder, batch, repeats) for batch in batches}
    best = {batch: min(seconds.values()) for batch, seconds in products.items()}
    matrix_bytes = FLOAT * decoder.weights
    return Machine(
        flops=max(_square(repeats), *(2 * b * decoder.weights / s for b, s in best.items())),
        bandwidth=max(_read(repeats), *(matrix_bytes / s for s in best.values())),
        products=products,
    )


def _products(decoder: Decoder, batch: int, repeats: int) -> dict[str, float]:
    """Each matrix of a step has memory of its own, so none is found in a cache by chance."""
    seconds = {"linear": 0.0, "packed": 0.0}
    for (rows, columns), count in decoder.matrices.items():
        x = torch.randn(batch, columns)
        plain = [torch.randn(rows, columns) for _ in range(count)]
        packed = [_pack(weight, batch) for weight in plain]
        seconds["linear"] += _best(partial(_each, F.linear, x, plain), repeats)
        seconds["packed"] += _best(partial(_each, _packed, x, packed), repeats)
    return seconds


def _each(product: Callable[[Tensor, Tensor], object], x: Tensor, weights: list[Tensor]) -> None:
    for weight in weights:
        product(x, weight)


def _pack(weight: Tensor, batch: int) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, batch)
    return packed


def _packed(x: Tensor, weight: Tensor) -> Any:
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def _square(repeats: int) -> float:
    a, b = torch.randn(SQUARE, SQUARE), torch.randn(SQUARE, SQUARE)
    return 2 * SQUARE**3 / _best(lambda: a @ b, repeats)


def _read(repeats: int) -> float:
    """Bytes a second of a product with one row, which is nothing but reading, and of a sum."""
    block = torch.ones(READ_BYTES // FLOAT // 4096, 4096)
    one = torch.ones(4096)
    return READ_BYTES / min(_best(lambda: block @ one, repeats), _best(block.sum, repeats))


def _best(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest run: a limit is what can be reached once, not what is usual."""
    work()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    decoder = Decoder.of(given.base)
    with torch.inference_mode():
        found = measure(decoder, (1, 8, 32), repeats=5)
    print(f"{found.flops / 1e9:.0f} GFLOP/s, {found.bandwidth / 1e9:.1f} GB/s")
    for batch, seconds in found.products.items():
        named = ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in seconds.items())
        limit = 1e3 * found.step(decoder, batch, 64)
        print(f"batch {batch}: products {named}; a step is at least {limit:.1f} ms")


if __name__ == "__main__":
    main()
