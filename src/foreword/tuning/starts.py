"""Where training starts: the keys and values of a text, random ones, zeros, or another artifact."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from foreword.artifact import open_artifact
from foreword.errors import ConfigError
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import LayerKV, PrefixKV
from foreword.prefix.loading import load_prefix
from foreword.prefix.observe import kv_of_tokens
from foreword.tuning.encoders import random_like, select
from foreword.tuning.recipe import PrefixSettings
from foreword.tuning.tokens import TokenRow

_SAMPLE_ROWS = 64


@dataclass(frozen=True)
class Start:
    """Where the prefix starts, and the keys and values of real text for their size."""

    prefix: PrefixKV
    scale: PrefixKV


def make_start(
    base: BaseModel, settings: PrefixSettings, rows: Sequence[TokenRow], seed: int
) -> Start:
    """The start a recipe asks for.

    Raises:
        ConfigError: the settings name layers or sites the model does not have, or an artifact of
            another length.
    """
    _check_selection(base, settings)
    text = kv_of_tokens(base, _text_inputs(base, settings, rows, seed), settings.length)
    text = select(text, settings)
    if settings.init == "text":
        return Start(text, text)
    if settings.init == "random":
        drawn = random_like(base.geometry, settings.length, seed, base.device)
        return Start(select(drawn, settings), text)
    if settings.init == "zero":
        return Start(_zeros(text), text)
    return Start(_from_artifact(base, settings), text)


def _check_selection(base: BaseModel, settings: PrefixSettings) -> None:
    missing = set(settings.sites or ()) - set(base.geometry.sites)
    if missing:
        raise ConfigError(
            f"prefix.sites names {', '.join(sorted(missing))}, but {base.ref.id} has only "
            f"{', '.join(base.geometry.sites)}",
            code="config.sites",
        )
    most = max(max(layers) for layers in base.geometry.sites.values())
    unknown = [i for i in settings.layers or () if not 0 <= i <= most]
    if unknown:
        raise ConfigError(
            f"prefix.layers names {unknown}, but {base.ref.id} has layers 0 to {most}",
            code="config.layers",
        )


def _text_inputs(
    base: BaseModel, settings: PrefixSettings, rows: Sequence[TokenRow], seed: int
) -> dict[str, Tensor]:
    if settings.init_text is not None:
        ids = base.required_tokenizer()(settings.init_text, add_special_tokens=False)["input_ids"]
        read, said = ids, ids
    else:
        sample = random.Random(seed).sample(list(rows), min(_SAMPLE_ROWS, len(rows)))
        said = [token for row in sample for token in row.target[:-1]]
        read = [token for row in sample for token in row.prompt]
        if base.kind == "causal":
            # Answers, not inputs: measured on E2E, they leave the lower held-out loss. The first
            # token is an attention sink, so it is the one the model was trained to begin with.
            first = base.required_tokenizer().bos_token_id
            read = said if first is None else [first, *said]
    inputs = {"input_ids": _exactly(read, settings.length, base)}
    if base.kind == "seq2seq":
        inputs["decoder_input_ids"] = _exactly(said, settings.length, base)
    return inputs


def _exactly(ids: Sequence[int], length: int, base: BaseModel) -> Tensor:
    """The first `length` ids, the text said again if it is too short."""
    if not ids:
        raise ConfigError("prefix.init_text has no tokens; give some text", code="config.init_text")
    repeated = (list(ids) * (length // len(ids) + 1))[:length]
    return torch.tensor([repeated], device=base.device)


def _zeros(like: PrefixKV) -> PrefixKV:
    return PrefixKV(
        like.length,
        {
            site: {
                i: LayerKV(torch.zeros_like(kv.key), torch.zeros_like(kv.value))
                for i, kv in layers.items()
            }
            for site, layers in like.layers.items()
        },
    )


def _from_artifact(base: BaseModel, settings: PrefixSettings) -> PrefixKV:
    if settings.init_artifact is None:
        raise ConfigError(
            "prefix.init is 'artifact'; say which with prefix.init_artifact",
            code="config.init_artifact",
        )
    kv = load_prefix(base, open_artifact(Path(settings.init_artifact))).kv
    if kv.length != settings.length:
        raise ConfigError(
            f"prefix.length is {settings.length}, the artifact to start from has {kv.length}; make "
            "them equal",
            code="config.init_length",
        )
    return select(kv.to(dtype=torch.float32), settings)
