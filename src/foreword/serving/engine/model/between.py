"""What lies between the matrix products of a written-out step: norms, rotation, gate.

`Eager` says it in torch's operations, on any device. On a CPU in float32 `native/` has the same as
compiled kernels, one for each line here.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from foreword.serving.engine.model.norms import Norm

if TYPE_CHECKING:
    from foreword.serving.engine.model.native.operations import Native

_log = logging.getLogger(__name__)
Angles = tuple[Tensor, Tensor]
"""Cosines and sines in the form that `turned` of the same object wants."""


class Between(Protocol):
    """What a written-out pass asks for between two products."""

    def add_norm(self, x: Tensor, delta: Tensor | None, norm: Norm) -> Tensor:
        """Add `delta` to `x` in place; the norm of the sum. `[token, dim]`."""

    def angles(self, cos: Tensor, sin: Tensor) -> Angles:
        """`[token, dim]` both."""

    def turned(
        self, qkv: Tensor, angles: Angles, heads: tuple[int, int], norms: tuple[Norm, Norm] | None
    ) -> Tensor:
        """Queries and keys `[token, head, dim]`, normed if there are norms, then rotated.

        `qkv` may be overwritten. `heads`: how many of its heads are queries, how many are keys.
        """

    def gated(self, both: Tensor) -> Tensor:
        """`silu(gate) * up` of `[token, gate | up]`."""


class Eager:
    """In torch's own operations."""

    def add_norm(self, x: Tensor, delta: Tensor | None, norm: Norm) -> Tensor:
        if delta is not None:
            x += delta
        return _normed(x, norm)

    def angles(self, cos: Tensor, sin: Tensor) -> Angles:
        # A head turns with its halves swapped and the sign of one of them changed. Rolling it by
        # half its width swaps them, which leaves the sign to be put on the sine.
        half = sin.shape[-1] // 2
        return cos[:, None], torch.cat([-sin[:, :half], sin[:, half:]], dim=-1)[:, None]

    def turned(
        self, qkv: Tensor, angles: Angles, heads: tuple[int, int], norms: tuple[Norm, Norm] | None
    ) -> Tensor:
        x = qkv[:, : sum(heads)]
        if norms is not None:
            parts = x.split(heads, dim=1)
            x = torch.cat([_normed(p, norm) for p, norm in zip(parts, norms, strict=True)], dim=1)
        cos, sin = angles
        return x * cos + x.roll(x.shape[-1] // 2, -1) * sin

    def gated(self, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, -1)
        return F.silu(gate) * up


def _normed(x: Tensor, norm: Norm) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.eps)


@cache
def native() -> Native | None:
    """The compiled kernels, or None where they do not run: without numba or GNU OpenMP."""
    try:
        from foreword.serving.engine.model.native.operations import Native

        return Native()
    except (ImportError, OSError) as error:
        _log.info("engine: no compiled kernels here, torch's operations instead (%s)", error)
        return None
