"""Tiny random models, one per family, for parity and speed; the real model is tested elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from foreword.prefix.base_model import BaseModel

_SIZES = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_HEADS = {**_GROUPED, "head_dim": 8}
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WINDOW = 4
"""Sliding window of the tiny models that have one: shorter than every text the tests use."""

FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**_GROUPED)),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**_GROUPED)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**_HEADS)),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**_GROUPED, sliding_window=WINDOW)),
    "gemma2": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**_HEADS, sliding_window=WINDOW)),
    "gemma3": lambda: tf.Gemma3ForCausalLM(
        tf.Gemma3TextConfig(
            **_HEADS,
            sliding_window=WINDOW,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )
    ),
    "gpt2": lambda: tf.GPT2LMHeadModel(
        tf.GPT2Config(vocab_size=128, n_embd=32, n_layer=3, n_head=4, n_positions=64, **_SPECIAL)
    ),
    "gpt_neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**_SIZES)),
    "opt": lambda: tf.OPTForCausalLM(
        tf.OPTConfig(
            vocab_size=128,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            ffn_dim=64,
            max_position_embeddings=64,
            word_embed_proj_dim=32,
            **_SPECIAL,
        )
    ),
    "bart": lambda: tf.BartForConditionalGeneration(
        tf.BartConfig(
            vocab_size=128,
            d_model=32,
            encoder_layers=2,
            decoder_layers=3,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=64,
            decoder_start_token_id=2,
            forced_eos_token_id=None,
            **_SPECIAL,
        )
    ),
    "t5": lambda: tf.T5ForConditionalGeneration(
        tf.T5Config(
            vocab_size=128,
            d_model=32,
            d_kv=8,
            num_layers=3,
            num_heads=4,
            d_ff=64,
            decoder_start_token_id=0,
            **{k: v for k, v in _SPECIAL.items() if k != "bos_token_id"},
        )
    ),
    "bert": lambda: tf.BertForMaskedLM(tf.BertConfig(**_SIZES)),
    "roberta": lambda: tf.RobertaForMaskedLM(
        tf.RobertaConfig(**{**_SIZES, "max_position_embeddings": 66, "pad_token_id": 1})
    ),
}
DECODERS = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "gpt2", "gpt_neox", "opt")
ENCODER_DECODERS = ("bart", "t5")
ENCODERS = ("bert", "roberta")
WINDOWED = ("mistral", "gemma2", "gemma3")


def tiny(family: str, seed: int = 0) -> PreTrainedModel:
    """A random model of a family, in evaluation mode, with weights large enough to matter."""
    torch.manual_seed(seed)
    model = FAMILIES[family]().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def ids(rows: int, tokens: int, seed: int = 0) -> torch.Tensor:
    """Random token ids `[rows, tokens]` that are never special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, 128, (rows, tokens), generator=generator)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per character of printable ASCII; the ids fit every tiny model."""
    special = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    characters = ["\n", *map(chr, range(32, 127))]
    vocabulary = special | {c: i for i, c in enumerate(characters, len(special))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def tiny_base(family: str = "llama", seed: int = 0) -> BaseModel:
    """A random base with the character tokenizer."""
    return BaseModel.from_model(tiny(family, seed), tokenizer(), name=f"tiny-{family}")


def shouting(count: int = 40) -> list[dict[str, str]]:
    """Rows a tiny model can learn something from: a short word, said loudly."""
    words = ["ab", "cd", "ef", "gh", "ij", "kl", "mn", "op"]
    return [
        {"input": f"{words[i % 8]}{i}", "target": words[i % 8].upper() * 2} for i in range(count)
    ]
