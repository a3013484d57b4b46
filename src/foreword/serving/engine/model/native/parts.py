"""The weights of linear layers with one input, as a kernel finds them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Parts:
    """`weights`: `[out, in]` each; `biases`: `[out]` or none. They are read where they lie."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        self._kept = [tensor.detach().contiguous() for tensor in weights]
        self._biases = [None if b is None else b.detach().contiguous() for b in biases]
        self.inputs = weights[0].shape[1]
        self.outputs = sum(weight.shape[0] for weight in weights)
        self.table = torch.tensor(
            [
                [len(weight), weight.data_ptr(), 0 if bias is None else bias.data_ptr()]
                for weight, bias in zip(self._kept, self._biases, strict=True)
            ]
        )
        """`[part, 3]`: how many outputs, and two addresses."""
