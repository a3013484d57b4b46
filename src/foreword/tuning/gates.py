"""Gated MLPs that keep two activations for the backward pass instead of three.

Most decoders end a layer with `down(act(gate(x)) * up(x))`. Written that way, autograd keeps the
gate, the activated gate and `up(x)`; the middle one is cheap to compute again. On a llama-shaped
model it is a fifth of everything a training step keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foreword.prefix.base_model import BaseModel

Activation = Callable[[Tensor], Tensor]


@contextmanager
def lean_gates(base: BaseModel) -> Iterator[None]:
    """Within the block, gated MLPs of `base` forget their activated gate. Outputs stay the same."""
    found = [module for module in base.model.modules() if _is_gated_mlp(module)]
    for module in found:
        object.__setattr__(module, "forward", partial(_forward, module))
    try:
        yield
    finally:
        for module in found:
            module.__dict__.pop("forward")


def _forward(module: Any, x: Tensor) -> Tensor:
    product = _GatedProduct.apply(module.gate_proj(x), module.up_proj(x), module.act_fn)
    output: Tensor = module.down_proj(product)
    return output


@torch.no_grad()
def _is_gated_mlp(module: nn.Module) -> bool:
    """True if the module is exactly this formula: it has the parts, and running it agrees."""
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if not all(isinstance(part, nn.Linear) for part in parts) or not hasattr(module, "act_fn"):
        return False
    weight: Tensor = module.gate_proj.weight  # type: ignore[union-attr, assignment]
    x = torch.linspace(-1.0, 1.0, weight.shape[1], dtype=weight.dtype, device=weight.device)
    return torch.equal(module(x[None, None]), _forward(module, x[None, None]))


class _GatedProduct(torch.autograd.Function):
    """`act(gate) * up`; the backward pass computes `act(gate)` again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, act: Activation) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.act = act
        return act(gate) * up

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        with torch.enable_grad():
            gate = gate.detach().requires_grad_()
            activated = ctx.act(gate)
        (to_gate,) = torch.autograd.grad(activated, gate, upstream * up)
        return to_gate, upstream * activated.detach(), None
