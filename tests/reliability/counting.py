"""A toy decoder that counts: after token `t` comes `t + 1`. Whatever an answer lacks, has twice or has of
another answer's is seen in its numbers.

The hidden state is the token's own codeword of random signs, attention and MLP add nothing, and the head
holds the codeword of `t` in row `t + 1`. Two codewords agree in about half of their signs, so the right
token is likelier than all others together by many orders of magnitude, whatever else is in the batch.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

NUMBERS = 10_000
CONTEXT = 512
_HIDDEN, _LOUD = 64, 4.0


def spelling(number: int) -> str:
    """Five letters, the last one a blank."""
    return f"{number:04d} "


def counted(start: int, tokens: int) -> str:
    """The answer to a prompt that ends in `start`."""
    return "".join(spelling((start + 1 + place) % NUMBERS) for place in range(tokens))


def save_counting_model(directory: Path) -> None:
    torch.manual_seed(18)
    config = tf.LlamaConfig(
        vocab_size=NUMBERS, hidden_size=_HIDDEN, num_hidden_layers=1, head_dim=16,
        num_attention_heads=1, num_key_value_heads=1, intermediate_size=4,
        max_position_embeddings=CONTEXT, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    model = tf.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        words = torch.randint(0, 2, (NUMBERS, _HIDDEN)).float() * 2 - 1
        model.model.embed_tokens.weight.copy_(words)
        model.lm_head.weight.copy_(_LOUD * words.roll(1, 0))
    model.save_pretrained(directory)
    _tokenizer().save_pretrained(directory)


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {spelling(number): number for number in range(NUMBERS)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=spelling(0)))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    inner.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(tokenizer_object=inner)
    made.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    return made
