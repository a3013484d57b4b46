"""RMS norms as numbers: what a model's norm module multiplies with, and its epsilon."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Norm(NamedTuple):
    """`x / sqrt(mean(x**2) + eps) * weight`."""

    weight: Tensor
    eps: float

    @classmethod
    def of(cls, module: Any) -> Norm:
        return cls(module.weight.detach(), float(module.variance_epsilon))
