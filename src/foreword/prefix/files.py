"""What the files of a base say, without its weights being loaded: needs no torch."""

from __future__ import annotations

from pathlib import Path

import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from foreword.artifact import BaseRef
from foreword.errors import CompatibilityError
from foreword.prefix import bases
from foreword.prefix.fingerprint import fingerprint_files, tokenizer_digest


def identify(ref: str | Path) -> BaseRef:
    """What a base is known by, from its files alone; the model is not loaded."""
    directory = bases.locate(ref)
    config = load_config(directory, ref)
    return BaseRef(
        id=str(ref),
        fingerprint=fingerprint_files(directory.glob("*.safetensors"), config),
        tokenizer=tokenizer_digest(load_tokenizer(directory)),
        architecture=config.model_type,
        context=context_of(config),
    )


def has_weights(directory: Path) -> bool:
    """Whether the weights lie there too, so that `identify` can say which base it is."""
    return any(directory.glob("*.safetensors"))


def load_config(directory: Path, ref: str | Path) -> PreTrainedConfig:
    """The configuration of the model that `ref` names.

    Raises:
        CompatibilityError: there is none that transformers can read (`base.unreadable`).
    """
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(directory)
    except (OSError, ValueError, KeyError) as e:
        raise CompatibilityError(
            f"no model could be read from {ref}: expected a config.json that transformers "
            f"{transformers.__version__} knows ({e})",
            code="base.unreadable",
        ) from e
    return config


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside a model; None if there is none."""
    if not any((directory / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory)
    return tokenizer


def context_of(whole: PreTrainedConfig) -> int | None:
    """Most positions a model knows; None if it has no limit."""
    config = whole.get_text_config(decoder=True)
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    # RoBERTa numbers positions from padding_idx + 1, so its table has that many unusable rows.
    reserved = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type else 0
    return limit - reserved
