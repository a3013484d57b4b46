"""Precision and activation memory of a training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from foreword.errors import ConfigError, UnsupportedModel
from foreword.prefix.base_model import BaseModel
from foreword.tuning.recipe import TrainSettings


def has_fast_bfloat16(device: torch.device) -> bool:
    """True if matrix products in bfloat16 run on the device's own units."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())


def precision(base: BaseModel, settings: TrainSettings) -> AbstractContextManager[object]:
    """Autocast for the forward pass, as `train.precision` asks.

    `auto` keeps float32 on a CPU even where it has bfloat16 units, so that the same recipe gives
    the same prefix on every CPU; ask for bfloat16 to use them.
    """
    wanted = settings.precision
    if wanted == "auto":
        fast = base.device.type != "cpu" and has_fast_bfloat16(base.device)
        wanted = "bfloat16" if fast else "float32"
    if wanted == "float32" or base.dtype == torch.bfloat16:
        return nullcontext()
    if not has_fast_bfloat16(base.device):
        raise ConfigError(
            f"train.precision is bfloat16, but {base.device.type} has no units for it here and "
            "would be many times slower; use float32 or auto",
            code="config.precision",
        )
    return torch.autocast(base.device.type, dtype=torch.bfloat16)


@contextmanager
def checkpointed(base: BaseModel, enabled: bool) -> Iterator[None]:
    """Within the block, layers forget their activations and run again in the backward pass.

    Only the layers themselves are put into training mode, not what is inside them: a frozen model
    has no use for dropout, and the gradients stay those of the run without checkpointing.
    """
    if not enabled:
        yield
        return
    if not base.model.supports_gradient_checkpointing:
        raise UnsupportedModel(
            f"{base.ref.architecture} has no gradient checkpointing in transformers; leave "
            "train.gradient_checkpointing off",
            code="model.no_checkpointing",
        )
    base.model.gradient_checkpointing_enable({"use_reentrant": False})
    layers = [m for m in base.model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
        base.model.gradient_checkpointing_disable()
