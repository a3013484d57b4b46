"""Real tokens start at position m: shift what a model knows about positions while attached.

Two kinds of modules turn positions into numbers: rotary embeddings, which are given position ids,
and tables of learned positions, some of which work the ids out for themselves. Both are shifted at
that last moment, so everything before it (padding masks, caches, `generate`) stays as the model
wrote it. Relative biases (T5) need no shift; `slots` extends them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from foreword.artifact import Site
from foreword.prefix.slots import Hub

_TABLE_NAME = re.compile(r"(^|\.)(wpe|position_embeddings|embed_positions|pos_emb(ed)?)$")


def install(stack: nn.Module, site: Site, hub: Hub) -> int:
    """Shift every position module of one encoder or decoder stack; returns how many there are."""
    count = 0
    for name, module in stack.named_modules():
        if _is_rotary(module):
            module.register_forward_pre_hook(_shift_rotary(site, hub), with_kwargs=True)
            count += 1
        elif isinstance(module, nn.Embedding) and _TABLE_NAME.search(name):
            object.__setattr__(module, "forward", _shifted_table(module, site, hub))
            count += 1
    return count


def _is_rotary(module: nn.Module) -> bool:
    return (
        "Rotary" in type(module).__name__
        and "position_ids" in inspect.signature(module.forward).parameters
    )


def _shift(positions: Tensor, batch: int, site: Site, hub: Hub) -> Tensor:
    """Add each row's prefix length to `positions [row or 1, token]` and note the unshifted ones.

    `batch` is how many rows the model runs: with beams or samples, several for each attached row.
    """
    attachment = hub.active
    if attachment is None:
        return positions
    attachment.positions[site] = positions
    offsets = attachment.offsets.get(site)
    if offsets is None:
        return positions
    if attachment.packing is not None and offsets.shape[0] > 1:
        rows = torch.div(
            attachment.packing.index, attachment.packing.longest, rounding_mode="floor"
        )
        return positions + offsets[rows][None]
    if 1 < offsets.shape[0] < batch:
        offsets = offsets.repeat_interleave(batch // offsets.shape[0])
    return positions + offsets[:, None]


def _rows(first: Any, positions: Tensor) -> int:
    """Rows the model runs: position ids may be one row for all, the first argument is not."""
    given = first.shape[0] if isinstance(first, Tensor) else 1
    return max(int(given), positions.shape[0])


def _shift_rotary(site: Site, hub: Hub) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # Every rotary module of transformers is called as (hidden_states, position_ids, ...).
        if "position_ids" in kwargs:
            ids = kwargs["position_ids"]
            return args, {**kwargs, "position_ids": _shift(ids, _rows(args[0], ids), site, hub)}
        shifted = _shift(args[1], _rows(args[0], args[1]), site, hub)
        return (args[0], shifted, *args[2:]), kwargs

    return hook


def _shifted_table(table: nn.Embedding, site: Site, hub: Hub) -> Callable[..., Tensor]:
    """A table's `forward` with shifted rows.

    OPT and BART work positions out inside the table's own `forward` and add an offset of their
    own. Looking up row numbers instead of weights tells which rows it would have read.
    """
    original = table.forward
    numbers = torch.arange(table.num_embeddings, dtype=torch.float64)[:, None]

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        if hub.active is None:
            return original(*args, **kwargs)
        probe = {"weight": numbers.to(table.weight.device)}
        table.__dict__.pop("forward")
        try:
            rows = functional_call(table, probe, args, kwargs)[..., 0].long()
        finally:
            object.__setattr__(table, "forward", forward)
        first = args[0] if args else None
        return F.embedding(_shift(rows, _rows(first, rows), site, hub), table.weight)

    return forward
