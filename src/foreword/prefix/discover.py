"""Read a model's geometry from the model itself: run it on a few tokens and watch its attention.

Nothing is guessed from configuration names. What a call looks like tells which site it belongs to;
whether a later token changes an earlier output tells a decoder from an encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from foreword.artifact import Geometry, LayerGeometry, Site
from foreword.errors import UnsupportedModel
from foreword.prefix import positions, slots
from foreword.prefix.slots import Hub, Slot

_SOURCE, _TARGET = 5, 3
"""Different lengths, so that the shapes of an encoder-decoder's calls tell its three sites apart."""


_DONE = "foreword_instrumented"


@dataclass(frozen=True)
class _Call:
    module: nn.Module
    queries: int
    keys: int
    geometry: LayerGeometry


def instrument(model: PreTrainedModel) -> tuple[Hub, Geometry]:
    """Place a slot in every attention layer of `model` and shift its positions when attached.

    A model is instrumented once; a second call gives the same hub.

    Raises:
        UnsupportedModel: the model has no attention keys and values, does not go through
            transformers' attention interface, or its layers share one module.
    """
    if (done := model.__dict__.get(_DONE)) is not None:
        hub, geometry = done
        return hub, geometry
    slots.register()
    implementation = _implementation(model)
    try:
        model.set_attn_implementation(implementation)
    except ValueError as e:
        raise _no_interface(model) from e
    calls = _watch(model)
    by_site = _sites(model, calls)
    hub = Hub()
    for site, found in by_site.items():
        source = next(
            (c.module for c in found if hasattr(c.module, "relative_attention_bias")), None
        )
        for index, call in enumerate(found):
            slots.place(call.module, Slot(site, index, hub, source))
    for site, stack in _stacks(model, by_site).items():
        positions.install(stack, site, hub)
    geometry = Geometry(
        {site: {i: c.geometry for i, c in enumerate(found)} for site, found in by_site.items()}
    )
    object.__setattr__(model, _DONE, (hub, geometry))
    return hub, geometry


def _implementation(model: PreTrainedModel) -> str:
    text = model.config.get_text_config(decoder=True)
    soft_capped = getattr(text, "attn_logit_softcapping", None) is not None
    # sdpa has no soft cap and would refuse; such models run on their own eager attention.
    return slots.SDPA if model._supports_sdpa and not soft_capped else slots.EAGER


def _no_interface(model: PreTrainedModel) -> UnsupportedModel:
    return UnsupportedModel(
        f"{model.config.model_type} cannot carry a prefix: no attention keys and values were seen. "
        "Either it has none (a state-space model), or its code does not use transformers' attention "
        "interface; choose a base of another family",
        code="model.no_attention",
    )


def _watch(model: PreTrainedModel) -> list[_Call]:
    calls: list[_Call] = []

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        query, key, value = args[0], args[1], args[2]
        shape = LayerGeometry(key.shape[1], key.shape[3], value.shape[3])
        calls.append(_Call(module, query.shape[2], key.shape[2], shape))

    with slots.watching(note), torch.no_grad():
        model(**probe_inputs(model))
    if not calls:
        raise _no_interface(model)
    if len({id(c.module) for c in calls}) != len(calls):
        raise UnsupportedModel(
            f"{model.config.model_type} cannot carry a prefix: its layers share one attention "
            "module, so a layer cannot be told from the next",
            code="model.shared_layers",
        )
    return calls


def probe_inputs(model: PreTrainedModel, seed: int = 0) -> dict[str, Tensor]:
    """A few valid token ids, away from the special ids at the bottom of most vocabularies."""
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    generator = torch.Generator().manual_seed(seed)
    low = min(10, vocabulary - 1)

    def ids(count: int) -> Tensor:
        return torch.randint(low, vocabulary, (1, count), generator=generator).to(model.device)

    if model.config.is_encoder_decoder:
        return {"input_ids": ids(_SOURCE), "decoder_input_ids": ids(_TARGET)}
    return {"input_ids": ids(_SOURCE)}


def _sites(model: PreTrainedModel, calls: list[_Call]) -> dict[Site, list[_Call]]:
    if not model.config.is_encoder_decoder:
        return {Site.DECODER if is_causal(model) else Site.ENCODER: calls}
    shapes: Mapping[tuple[int, int], Site] = {
        (_SOURCE, _SOURCE): Site.ENCODER,
        (_TARGET, _TARGET): Site.DECODER,
        (_TARGET, _SOURCE): Site.CROSS,
    }
    by_site: dict[Site, list[_Call]] = {}
    for call in calls:
        by_site.setdefault(shapes[call.queries, call.keys], []).append(call)
    return by_site


def is_causal(model: PreTrainedModel) -> bool:
    """True if changing the last token leaves the outputs before it as they are."""
    inputs = probe_inputs(model)["input_ids"]
    changed = inputs.clone()
    changed[0, -1] = inputs[0, 0] if inputs[0, -1] != inputs[0, 0] else inputs[0, 1]
    with torch.no_grad():
        before = model(input_ids=inputs)[0][0, :-1]
        after = model(input_ids=changed)[0][0, :-1]
    return bool(torch.allclose(before, after, rtol=1e-4, atol=1e-5))


def _stacks(model: PreTrainedModel, by_site: Mapping[Site, Any]) -> dict[Site, nn.Module]:
    if not model.config.is_encoder_decoder:
        return {next(iter(by_site)): model}
    return {Site.ENCODER: model.get_encoder(), Site.DECODER: model.get_decoder()}
