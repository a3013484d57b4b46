"""Linear layers with weights laid out once for the processor's matrix products.

On a CPU a decode step is matrix products with few rows; oneDNN's own weight layout makes them
1.3 to 2 times faster than the row-major one (`bench/serving.py` measures it). The packed weight is
a second copy: the model's own stays as it is, for training and for the fingerprint.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PackedLinear:
    """`x @ weight.T + bias` for one weight `[out, in]`, or for several with the same input."""

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor | None], pack: bool = True
    ) -> None:
        weight = torch.cat([w.detach() for w in weights]) if len(weights) > 1 else weights[0]
        self.bias = _joined_bias(weights, biases)
        self.packed = pack and packs(weight)
        self.weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
            if self.packed
            else weight.detach()
        )

    @classmethod
    def of(cls, *layers: nn.Linear, pack: bool = True) -> PackedLinear:
        return cls([layer.weight for layer in layers], [layer.bias for layer in layers], pack)

    def __call__(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        if not self.packed:
            return F.linear(x, self.weight, self.bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
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
