"""What attention sees: the keys and values of real tokens, and how much falls on a prefix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from foreword.artifact import Site
from foreword.errors import CompatibilityError
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import LayerKV, PrefixKV
from foreword.prefix.slots import Observer, Seen


@contextmanager
def observing(base: BaseModel, observer: Observer) -> Iterator[None]:
    """Within the block, `observer` sees every attention call of `base.model`."""
    before, base.hub.observer = base.hub.observer, observer
    try:
        yield
    finally:
        base.hub.observer = before


@torch.no_grad()
def kv_of_tokens(base: BaseModel, inputs: Mapping[str, Tensor], length: int) -> PrefixKV:
    """Run one row of real tokens and keep the keys and values of the first `length` of them.

    `inputs` are the model's own arguments (`input_ids [1, token]`, for an encoder-decoder also
    `decoder_input_ids`). The result, attached, stands for exactly those tokens.
    """
    layers: dict[Site, dict[int, LayerKV]] = {}

    def keep(seen: Seen) -> None:
        if seen.key.shape[2] < length:
            raise CompatibilityError(
                f"{length} virtual tokens need at least {length} real ones to start from, the "
                f"{seen.slot.site} saw {seen.key.shape[2]}",
                code="prefix.text_too_short",
            )
        layers.setdefault(seen.slot.site, {})[seen.slot.layer] = LayerKV(
            seen.key[0, :, :length].clone(), seen.value[0, :, :length].clone()
        )

    with observing(base, keep):
        base.model(**inputs, use_cache=False) if base.kind != "masked" else base.model(**inputs)
    return PrefixKV(length, layers)


class AttentionShare:
    """Observer: the mean share of attention that falls on the prefix, per site and layer.

    Softmax mass on the prefix's columns, averaged over rows, heads and queries. Above one half, the
    prefix drowns the input it should be applied to.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[Site, int], float] = {}
        self._counts: dict[tuple[Site, int], int] = {}

    def __call__(self, seen: Seen) -> None:
        if seen.width == 0:
            return
        groups, mask = seen.query.shape[1] // seen.key.shape[1], seen.mask
        keys = seen.key.float().repeat_interleave(groups, dim=1)
        scores = seen.query.float() @ keys.transpose(2, 3) * seen.scaling
        if mask is not None:
            floor = torch.finfo(scores.dtype).min
            scores = scores.masked_fill(~mask, floor) if mask.dtype == torch.bool else scores + mask
        share = scores.softmax(dim=3)[..., : seen.width].sum(dim=3)
        place = (seen.slot.site, seen.slot.layer)
        self._sums[place] = self._sums.get(place, 0.0) + float(share.sum())
        self._counts[place] = self._counts.get(place, 0) + share.numel()

    def result(self) -> dict[Site, dict[int, float]]:
        """Mean share in 0..1 per site and layer."""
        shares: dict[Site, dict[int, float]] = {}
        for (site, layer), total in sorted(self._sums.items()):
            shares.setdefault(site, {})[layer] = total / self._counts[site, layer]
        return shares
