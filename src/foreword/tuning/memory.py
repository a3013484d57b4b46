"""Precision and activation memory of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from foreword.errors import ConfigError, UnsupportedModel
from foreword.prefix.base_model import BaseModel
from foreword.tuning.recipe import TrainSettings


def has_fast_bfloat16(device: torch.device) -> bool:
    """True if matrix products in bfloat16 run on the device's own units."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Without these tiles a CPU emulates bfloat16, many times slower than float32.
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and tiles is not None and bool(tiles())


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

    The layers are wrapped here instead of switched to training mode, as transformers would have it:
    that would turn on the dropout of some families, and a frozen model has no use for it.
    """
    layers = [m for m in base.model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if enabled and not layers:
        raise UnsupportedModel(
            f"{base.ref.architecture} has no layers that transformers can run again; leave "
            "train.gradient_checkpointing off",
            code="model.no_checkpointing",
        )
    for layer in layers if enabled else ():
        object.__setattr__(layer, "forward", partial(_run_again, layer.forward))
    try:
        yield
    finally:
        for layer in layers if enabled else ():
            layer.__dict__.pop("forward")


def _run_again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False)
