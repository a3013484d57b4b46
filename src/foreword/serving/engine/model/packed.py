"""Linear layers with weights laid out once for the processor's matrix products.

On a CPU a decode step is matrix products with few rows; oneDNN's own weight layout makes them
1.3 to 2 times faster than the row-major one (`bench/serving.py` measures it). The packed weight is
a second copy: the model's own stays as it is, for training and for the fingerprint, and for one row or
two, which the compiled kernel reads faster than oneDNN does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foreword.serving.engine.model.native.parts import Parts

if TYPE_CHECKING:
    from foreword.serving.engine.model.native.operations import Native

_FEW = 2
"""Rows up to which a product takes the time in which its weights come from memory."""


class PackedLinear:
    """`x @ weight.T + bias` for one weight `[out, in]`, or for several with the same input."""

    def __init__(self, layers: Sequence[nn.Linear], pack: bool, native: Native | None) -> None:
        weights = [layer.weight.detach() for layer in layers]
        biases = [layer.bias for layer in layers]
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        self.bias = _joined_bias(weights, biases)
        self.shape = tuple(weight.shape)
        """`[out, in]`."""
        self.packed = pack and packs(weight)
        self.weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight.contiguous()) if self.packed else weight
        )
        # One overload: looking for the right one of a name takes as long as a small product.
        self._product = torch.ops.mkldnn._linear_pointwise.default if self.packed else None
        self._native = native
        self._parts = Parts(weights, biases)

    def __call__(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        if self._native is not None and x.numel() <= _FEW * x.shape[-1]:
            few = self._native.linear(x.reshape(-1, x.shape[-1]), self._parts)
            return few.view(*x.shape[:-1], -1)
        if self._product is None:
            return F.linear(x, self.weight, self.bias)
        out: Tensor = self._product(x, self.weight, self.bias, "none", [], "")
        return out


def packs(weight: Tensor) -> bool:
    """Whether this build of torch can pack this weight."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def _joined_bias(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor | None:
    if all(bias is None for bias in biases):
        return None
    return torch.cat(
        [
            weight.new_zeros(weight.shape[0]) if bias is None else bias.detach()
            for weight, bias in zip(weights, biases, strict=True)
        ]
    )
