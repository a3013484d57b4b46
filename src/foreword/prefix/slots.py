"""The attention function that lets a model see a prefix: one place, every family.

Transformers lets a model choose its attention function by name. Ours puts the prefix's keys and
values in front of the layer's own, extends the mask (a sliding window slides past the prefix, as it
would past real tokens) and hands over to the model's usual function. It also is the one place where
keys and values can be observed, which is how geometry, text starts and attention share are read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

from foreword.artifact import Site
from foreword.errors import UnsupportedModel
from foreword.prefix.packing import Packing

SDPA = "foreword_sdpa"
EAGER = "foreword_eager"
_ATTRIBUTE = "foreword_slot"
_UNUSUAL = {"position_bias", "softcap", "cache"}
"""What transformers' own function has to handle."""


@dataclass(frozen=True)
class PrefixRows:
    """What one attention slot adds to a batch: the prefix of every row, ending at the same column.

    Rows with shorter prefixes are padded on the left, so that the distance between a virtual token
    and a real one does not depend on the row's neighbours.
    """

    key: Tensor
    """`[row, kv_head, width, key_dim]`; `row` is 1 if all rows share one prefix."""
    value: Tensor
    """`[row, kv_head, width, value_dim]`."""
    present: Tensor | None
    """`[row, width]`, False on padding; None if every row is full."""

    @property
    def width(self) -> int:
        return self.key.shape[2]


@dataclass
class Attachment:
    """The prefixes that the next forward passes see, and the positions those passes report."""

    rows: dict[tuple[Site, int], PrefixRows]
    offsets: dict[Site, Tensor]
    """Per site `[row]` or `[1]`: how many positions the row's virtual tokens take."""
    packing: Packing | None = None
    positions: dict[Site, Tensor] = field(default_factory=dict)
    """Positions of the current queries counted without the prefix, `[row or 1, token]`."""


@dataclass(frozen=True)
class Seen:
    """One attention call, after the prefix was put in front."""

    slot: Slot
    query: Tensor
    """`[row, head, token, dim]`."""
    key: Tensor
    """`[row, kv_head, width + past + token, dim]`."""
    value: Tensor
    mask: Tensor | None
    """None, boolean, or additive."""
    scaling: float
    width: int
    """Columns that belong to the prefix."""


Observer = Callable[[Seen], None]


class ServingStep(Protocol):
    """A step of a serving engine: it keeps keys and values itself, those of prefixes included."""

    def attend(
        self, slot: Slot, query: Tensor, key: Tensor, value: Tensor, arguments: Mapping[str, Any]
    ) -> Tensor:
        """Shapes as in `prefix_attention`, for a flat batch of one row."""
        ...


@dataclass
class Hub:
    """Per model: what is attached now and who is watching."""

    active: Attachment | None = None
    step: ServingStep | None = None
    observer: Observer | None = None


@dataclass(frozen=True)
class Slot:
    """A place in the running model where a prefix can attach."""

    site: Site
    layer: int
    hub: Hub
    bias_source: nn.Module | None
    """T5: the module of this stack that owns the relative position bias."""


_watcher: Callable[[nn.Module, tuple[Any, ...]], None] | None = None


@contextmanager
def watching(note: Callable[[nn.Module, tuple[Any, ...]], None]) -> Iterator[None]:
    """Call `note(module, (query, key, value, ...))` for modules that are not placed yet."""
    global _watcher
    _watcher = note
    try:
        yield
    finally:
        _watcher = None


def place(module: nn.Module, slot: Slot) -> None:
    """Tell an attention module which slot it is."""
    object.__setattr__(module, _ATTRIBUTE, slot)


def slot_of(module: nn.Module) -> Slot | None:
    return getattr(module, _ATTRIBUTE, None)


def prefix_attention(
    inner: Callable[..., tuple[Tensor, Tensor | None]],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention with the active prefix in front of `key` and `value`.

    Shapes as transformers hands them over: query `[row, head, token, dim]`, key and value
    `[row, kv_head, past + token, dim]`; returns `[row, token, head, dim]`.
    """
    slot = slot_of(module)
    if slot is None:
        if _watcher is not None:
            _watcher(module, (query, key, value))
        return inner(module, query, key, value, attention_mask, **kwargs)
    if slot.hub.step is not None:
        return slot.hub.step.attend(slot, query, key, value, kwargs), None
    attachment = slot.hub.active
    packing = attachment.packing if attachment else None
    if packing is not None:
        query, key, value = (packing.unpack(t) for t in (query, key, value))
        attention_mask = packing.causal_mask(kwargs.get("sliding_window"))
    rows = attachment.rows.get((slot.site, slot.layer)) if attachment else None
    if attachment is not None and rows is not None:
        key, value, attention_mask = _with_prefix(
            module, slot, attachment, rows, query, key, value, attention_mask, kwargs
        )
    if slot.hub.observer is not None:
        scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
        width = rows.width if rows else 0
        slot.hub.observer(Seen(slot, query, key, value, attention_mask, scaling, width))
    output, weights = inner(module, query, key, value, attention_mask, **kwargs)
    return (packing.pack(output) if packing else output), weights


def _with_prefix(
    module: nn.Module,
    slot: Slot,
    attachment: Attachment,
    rows: PrefixRows,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    kwargs: dict[str, Any],
) -> tuple[Tensor, Tensor, Tensor | None]:
    batch, tokens, own = query.shape[0], query.shape[2], key.shape[2]
    visible = _visible(slot, attachment, rows, tokens, kwargs.get("sliding_window"))
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    mask = _extend_mask(mask, visible, rows.width, batch, tokens, own, bool(causal), query)
    if kwargs.get("position_bias") is not None:
        kwargs["position_bias"] = _extend_bias(slot, kwargs["position_bias"], rows.width)
    key = torch.cat([_per_row(rows.key, batch).to(key.dtype), key], dim=2)
    value = torch.cat([_per_row(rows.value, batch).to(value.dtype), value], dim=2)
    return key, value, mask


def _per_row(tensor: Tensor, batch: int) -> Tensor:
    """Match the batch: one shared row is expanded; beams and samples of a row follow each other."""
    if tensor.shape[0] == 1:
        return tensor.expand(batch, *tensor.shape[1:])
    if tensor.shape[0] == batch:
        return tensor
    return tensor.repeat_interleave(batch // tensor.shape[0], dim=0)


def _visible(
    slot: Slot, attachment: Attachment, rows: PrefixRows, tokens: int, window: int | None
) -> Tensor | None:
    """Which prefix columns a query may see, `[row, 1, token, width]`; None if it sees them all.

    Virtual token `c` of a row sits `width - c` positions before the row's first real token, so a
    query at real position `p` is `p + width - c` away, and a window of `w` shows distances < `w`.
    """
    present = None if rows.present is None else rows.present[:, None, None, :]
    if window is None:
        return present
    if slot.site is Site.ENCODER:
        raise UnsupportedModel(
            "an encoder with sliding windows cannot carry a prefix yet: the prefix would be "
            "visible from one side only",
            code="model.encoder_window",
        )
    if attachment.packing is not None:
        positions = torch.arange(tokens, device=rows.key.device)[None]
    else:
        positions = attachment.positions[slot.site]
    columns = torch.arange(rows.width, device=rows.key.device)
    near = (positions[:, None, :, None] + rows.width - columns) < window
    if present is None:
        return near
    return near & (present if near.shape[0] == 1 else _per_row(present, near.shape[0]))


def _extend_mask(
    mask: Tensor | None,
    visible: Tensor | None,
    width: int,
    batch: int,
    tokens: int,
    own: int,
    causal: bool,
    query: Tensor,
) -> Tensor | None:
    """Put the prefix's columns in front of a mask: None, boolean, or additive float."""
    if mask is None:
        triangular = causal and tokens > 1
        if visible is None and not triangular:
            return None
        mask = torch.ones(1, 1, tokens, own, dtype=torch.bool, device=query.device)
        if triangular:
            mask = mask.tril(own - tokens)
    shape = (mask.shape[0], mask.shape[1], mask.shape[2], width)
    if visible is None:
        front = mask.new_ones(shape) if mask.dtype == torch.bool else mask.new_zeros(shape)
        return torch.cat([front, mask], dim=3)
    visible = _per_row(visible, batch)
    if mask.dtype != torch.bool:
        hidden = torch.finfo(mask.dtype).min
        visible = torch.zeros(visible.shape, dtype=mask.dtype, device=mask.device).masked_fill(
            ~visible, hidden
        )
    full = (batch, mask.shape[1], mask.shape[2])
    return torch.cat([visible.expand(*full, width), mask.expand(*full, own)], dim=3)


def _extend_bias(slot: Slot, bias: Tensor, width: int) -> Tensor:
    """T5: the relative bias between the queries and the virtual tokens, `[1, head, token, width]`.

    Cross-attention has no positions, so its bias is zero there as it is everywhere else.
    """
    tokens, own = bias.shape[2], bias.shape[3]
    source: Any = slot.bias_source
    if slot.site is Site.CROSS or source is None:
        front = bias.new_zeros(*bias.shape[:3], width)
    else:
        queries = torch.arange(tokens, device=bias.device)[:, None] + width + own - tokens
        virtual = torch.arange(width, device=bias.device)[None, :]
        buckets = source._relative_position_bucket(
            virtual - queries,
            bidirectional=not source.is_decoder,
            num_buckets=source.relative_attention_num_buckets,
            max_distance=source.relative_attention_max_distance,
        )
        front = source.relative_attention_bias(buckets).permute(2, 0, 1).unsqueeze(0)
    return torch.cat([front.to(bias.dtype), bias], dim=3)


def _sdpa(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    return prefix_attention(_own_sdpa, module, *args, **kwargs)


def _own_sdpa(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """transformers' SDPA, but on a CPU grouped heads share keys and values instead of copying them.

    transformers copies them wherever there is a mask, because other devices would leave their fast
    kernels; the CPU's takes both, gives the same bits, and a training step then keeps a third.
    """
    grouped = query.shape[1] != key.shape[1] and query.shape[2] > 1 and mask is not None
    if not grouped or query.device.type != "cpu" or set(kwargs) & _UNUSUAL:
        output: tuple[Tensor, Tensor | None]
        output = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        return output
    attended = F.scaled_dot_product_attention(
        query, key, value, mask, scale=kwargs.get("scaling"), enable_gqa=True,
        dropout_p=kwargs.get("dropout", 0.0),
    )  # fmt: skip
    return attended.transpose(1, 2).contiguous(), None


def _eager(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    return prefix_attention(_own_eager, module, *args, **kwargs)


def _own_eager(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The eager attention of the model's own file, which adds its mask to the scores."""
    inner = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if inner is None:
        raise UnsupportedModel(
            f"{type(module).__name__} has no eager attention function to build on",
            code="model.no_attention_interface",
        )
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device).masked_fill(
            ~mask, torch.finfo(query.dtype).min
        )
    output: tuple[Tensor, Tensor | None] = inner(module, query, key, value, mask, **kwargs)
    return output


def register() -> None:
    """Make both attention functions known to transformers. Safe to call again."""
    AttentionInterface.register(SDPA, _sdpa)
    AttentionMaskInterface.register(SDPA, sdpa_mask)
    AttentionInterface.register(EAGER, _eager)
    AttentionMaskInterface.register(EAGER, eager_mask)
