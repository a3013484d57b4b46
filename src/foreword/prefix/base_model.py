"""The frozen model: loaded once, never trained, known by its fingerprint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from foreword.artifact import BaseRef, Geometry, Site
from foreword.errors import CompatibilityError, UnsupportedModel
from foreword.prefix import bases
from foreword.prefix.discover import instrument
from foreword.prefix.files import context_of, load_config, load_tokenizer
from foreword.prefix.fingerprint import (
    Tensor,
    fingerprint_files,
    fingerprint_tensors,
    tokenizer_digest,
)  # fmt: skip
from foreword.prefix.slots import Hub

Kind = Literal["causal", "seq2seq", "masked"]
_LOADERS: dict[Kind, Any] = {
    "causal": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "masked": AutoModelForMaskedLM,
}


@dataclass(frozen=True)
class BaseModel:
    """A frozen Hugging Face model that prefixes can attach to."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    ref: BaseRef
    geometry: Geometry
    kind: Kind
    hub: Hub

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def context(self) -> int | None:
        """Most positions the model knows, None if it has no limit (relative positions)."""
        return self.ref.context

    def required_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; a base without one can only be driven with token ids."""
        if self.tokenizer is None:
            raise CompatibilityError(
                f"base {self.ref.id} has no tokenizer files; add them to its directory",
                code="base.no_tokenizer",
            )
        return self.tokenizer

    @classmethod
    def from_model(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        name: str = "in-memory",
    ) -> BaseModel:
        """Freeze and instrument a model that is already in memory."""
        return _assemble(model, tokenizer, name, None)


def load_base(
    ref: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device | None = None
) -> BaseModel:
    """Load a base: `demo`, a name from `foreword base add`, a Hugging Face id, a directory or a
    GGUF file (converted once, then read from the cache).

    `dtype` defaults to float32 on a CPU and to the checkpoint's own on an accelerator.

    Raises:
        CompatibilityError: nothing loadable is there.
        UnsupportedModel: the model cannot carry a prefix; the message says why.
    """
    directory = bases.locate(ref)
    config = load_config(directory, ref)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    wanted = dtype or (torch.float32 if device.type == "cpu" else config.dtype or torch.float32)
    model = _load_weights(directory, config, wanted).to(device)
    return _assemble(model, load_tokenizer(directory), str(ref), directory)


def kind_of(config: PreTrainedConfig) -> Kind:
    """What the model computes, from the architecture its configuration names."""
    names = " ".join(config.architectures or [])
    if config.is_encoder_decoder:
        return "seq2seq"
    return "masked" if "MaskedLM" in names or "ForPreTraining" in names else "causal"


def _load_weights(directory: Path, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    kind = kind_of(config)
    try:
        model: PreTrainedModel = _LOADERS[kind].from_pretrained(
            directory, config=config, dtype=dtype, use_safetensors=True
        )
    except ValueError as e:
        raise UnsupportedModel(
            f"{config.model_type} cannot be loaded as a language model ({e})",
            code="model.not_a_language_model",
        ) from e
    except OSError as e:
        raise CompatibilityError(
            f"{directory} holds no safetensors weights ({e}); convert the checkpoint with "
            "model.save_pretrained(directory)",
            code="base.weights",
        ) from e
    return model


def _assemble(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    name: str,
    directory: Path | None,
) -> BaseModel:
    model.requires_grad_(False)
    model.eval()
    files = sorted(directory.glob("*.safetensors")) if directory else []
    # The configuration is part of the fingerprint, so it is read before instrumentation.
    fingerprint = (
        fingerprint_files(files, model.config)
        if files
        else fingerprint_tensors(_tensors(model), model.config)
    )
    hub, geometry = instrument(model)
    ref = BaseRef(
        id=name,
        fingerprint=fingerprint,
        tokenizer=tokenizer_digest(tokenizer),
        architecture=model.config.model_type,
        context=context_of(model.config),
    )
    return BaseModel(model, tokenizer, ref, geometry, _kind(model, geometry), hub)


def _kind(model: PreTrainedModel, geometry: Geometry) -> Kind:
    if model.config.is_encoder_decoder:
        return "seq2seq"
    return "masked" if Site.ENCODER in geometry.sites else "causal"


def _tensors(model: PreTrainedModel) -> Iterator[Tensor]:
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen:  # tied weights are stored once
            continue
        seen.add(tensor.data_ptr())
        data = tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        yield Tensor(name, str(tensor.dtype), list(tensor.shape), data)
