"""Make a model attend to prefixes: one for all rows, or one (or none) per row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foreword.artifact import Site
from foreword.errors import CompatibilityError
from foreword.prefix.kv import LayerKV, PrefixKV
from foreword.prefix.packing import Packing
from foreword.prefix.slots import Attachment, PrefixRows

if TYPE_CHECKING:
    from foreword.prefix.base_model import BaseModel

Prefixes = PrefixKV | Sequence[PrefixKV | None] | None


@contextmanager
def attach(
    base: BaseModel, prefixes: Prefixes, *, packing: Packing | None = None
) -> Iterator[None]:
    """Within the block, every forward pass of `base.model` sees `prefixes`.

    `prefixes` is one prefix for all rows, or one entry per row of the batch (None: the bare model).
    Rows may differ in length. `generate` may expand a row into beams or samples. With `packing`
    the model is called on a flat batch `[1, tokens]`. The block must also enclose the backward
    pass: gradient checkpointing runs the layers again.

    Raises:
        CompatibilityError: the prefix has a site, layer or shape that this model does not have.
    """
    if base.hub.active is not None:
        raise CompatibilityError(
            "prefixes are already attached to this model; leave that block first",
            code="attach.nested",
        )
    base.hub.active = _attachment(base, prefixes, packing)
    try:
        yield
    finally:
        base.hub.active = None


def _attachment(base: BaseModel, prefixes: Prefixes, packing: Packing | None) -> Attachment:
    rows: list[PrefixKV | None]
    rows = [prefixes] if isinstance(prefixes, PrefixKV) or prefixes is None else list(prefixes)
    distinct = list({id(p): p for p in rows if p is not None}.values())
    for prefix in distinct:
        _check_fits(base, prefix)
    which = torch.tensor(
        [next((i for i, d in enumerate(distinct) if d is row), -1) for row in rows],
        device=base.device,
    )
    width = max((p.length for p in distinct), default=0)
    slots = sorted({(site, index) for p in distinct for site, index, _ in p})
    offsets = {
        site: torch.tensor(
            [p.length if p is not None and site in p.layers else 0 for p in rows],
            device=base.device,
        )
        for site in (Site.DECODER, Site.ENCODER)
    }
    return Attachment(
        {slot: _rows(distinct, which, slot, width, base) for slot in slots}, offsets, packing
    )


def _check_fits(base: BaseModel, prefix: PrefixKV) -> None:
    for site, index, layer in prefix:
        expected = base.geometry.sites.get(site, {}).get(index)
        if expected != layer.geometry:
            raise CompatibilityError(
                f"the prefix does not fit this base: {site} layer {index} expects "
                f"{expected or 'no such layer'}, got {layer.geometry}",
                code="base.geometry",
            )


def _rows(
    distinct: Sequence[PrefixKV], which: Tensor, slot: tuple[Site, int], width: int, base: BaseModel
) -> PrefixRows:
    """Stack the slot's part of each distinct prefix, padded on the left, then pick by row."""
    site, index = slot
    geometry = base.geometry.sites[site][index]
    keys, values, present = [], [], []
    for prefix in distinct:
        layer = prefix.layers.get(site, {}).get(index)
        length = prefix.length if layer is not None else 0
        if layer is None:
            layer = LayerKV(
                torch.zeros(geometry.kv_heads, 0, geometry.key_dim, device=base.device),
                torch.zeros(geometry.kv_heads, 0, geometry.value_dim, device=base.device),
            )
        pad = (0, 0, width - length, 0)
        keys.append(torch.nn.functional.pad(layer.key.to(base.device), pad))
        values.append(torch.nn.functional.pad(layer.value.to(base.device), pad))
        present.append(torch.arange(width, device=base.device) >= width - length)
    if which.shape[0] == 1 and len(distinct) == 1 and bool(present[0].all()):
        return PrefixRows(keys[0][None], values[0][None], None)
    # Row -1 (no prefix) reads any entry and sees none of it.
    mask = torch.stack(present)[which] & (which >= 0)[:, None]
    return PrefixRows(torch.stack(keys)[which], torch.stack(values)[which], mask)
