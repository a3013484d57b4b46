"""A toy decoder that says which prefix it sees: prefix `i` forces marker `i`, the bare model `BARE`.

The weights are written by hand. In layer 0 every token looks at its prefix and takes over its marker, a
codeword of 15 signs; without a prefix it takes over `BARE`. In layer 1 it looks at the request's own
tokens too, so that what was computed with another prefix brings another marker, and at their voice: each
prompt speaks in one of two, and the answer goes on in it. A token is a marker and a voice.

The columns of a prefix hold its marker plus noise of a hundred times its size that adds up to nothing:
one column missing, or of another prefix, and a wrong marker comes out. A prefix covers layer 0,
layer 1, or both. Markers are Hamming's [15, 11, 3] code (1950), so two differ in at least 3 signs, and
the forced token is at least `MARGIN` likelier, in natural logarithms, than all others together.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from foreword.artifact import Artifact, PromptFormat, Site, pack
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import LayerKV, PrefixKV

MARKERS, VOICES = 2048, 2
STALE, BARE = 0, 1
"""Markers no prefix has: of memory that nobody may read (all signs equal), and of the bare model."""
FIRST = 2
CONTEXT = 256
COVERS = ((0, 1), (0,), (1,))
"""Layers that a prefix can have keys and values for."""
MARGIN = 25.0
NOISE = 100.0

_SIGNS, _VOICE, _ONE, _HEARD = slice(0, 15), 15, 16, 17
"""Places in the hidden state: the marker, the voice of the answer, a constant, a token's own voice."""
_LOOK, _LISTEN = 7, 6
"""Places in a key: what the first head looks for, and the second. Positions turn neither."""
_HARD = 40.0
_HIDDEN, _DIM = 32, 16


def token(marker: int, voice: int) -> int:
    return marker * VOICES + voice


def marker(token: int) -> int:
    return token // VOICES


def spelling(token: int) -> str:
    return f"{marker(token):04d}{'ab'[token % VOICES]}."


def marked_base() -> BaseModel:
    config = tf.LlamaConfig(
        vocab_size=MARKERS * VOICES, hidden_size=_HIDDEN, num_hidden_layers=2, head_dim=_DIM,
        num_attention_heads=2, num_key_value_heads=1, intermediate_size=4,
        max_position_embeddings=CONTEXT, rope_parameters={"rope_type": "default", "rope_theta": 1e30},
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    model = tf.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        _write_weights(model)
    return BaseModel.from_model(model, _tokenizer(), name="marked")


def marked_prefix(number: int, *, length: int, covers: tuple[int, ...], seed: int) -> PrefixKV:
    """Keys and values that force marker `number`."""
    rng = np.random.default_rng(seed)
    return PrefixKV(
        length,
        {Site.DECODER: {layer: _layer(number, length, layer, covers, rng) for layer in covers}},
    )


def marked_artifact(
    base: BaseModel, name: str, version: str, number: int, length: int, covers: tuple[int, ...]
) -> Artifact:
    prefix = marked_prefix(number, length=length, covers=covers, seed=number)
    return pack(
        name=name, version=version, created="2026-01-31T12:00:00Z", base=replace(base.ref, id="toy"),
        geometry=prefix.geometry, length=length, dtype="float32",
        prompt=PromptFormat("template", "{input}"), training={}, probes=(), tensors=prefix.to_bytes(),
    )  # fmt: skip


def _codewords() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """`[marker, sign]`: all 15-bit words whose set positions, counted from 1, have an xor of 0."""
    positions = np.arange(1, 16)
    data = [place for place in positions if place & (place - 1)]
    words = np.zeros((MARKERS, 15), np.int64)
    for bit, place in enumerate(data):
        words[:, place - 1] = np.arange(MARKERS) >> bit & 1
    check = np.bitwise_xor.reduce(words * positions, axis=1)
    for bit in range(4):
        words[:, (1 << bit) - 1] = check >> bit & 1
    return (1 - 2 * words).astype(np.float32)


CODEWORDS = _codewords()


def _layer(
    number: int, length: int, layer: int, covers: tuple[int, ...], rng: np.random.Generator
) -> LayerKV:
    key, value = np.zeros((1, length, _DIM), np.float32), np.zeros((1, length, _DIM), np.float32)
    noise = rng.normal(size=(length, 15))
    value[0, :, :15] = CODEWORDS[number] + NOISE * (noise - noise.mean(axis=0))
    value[0, :, 15] = rng.normal(size=length)
    # Behind layer 0 the request's own tokens say the same, so they may be heard beside it.
    key[0, :, _LOOK] = 0.0 if layer == 1 and 0 in covers else _HARD
    key[0, :, _LISTEN] = -_HARD
    return LayerKV(torch.from_numpy(key), torch.from_numpy(value))


def _write_weights(model: tf.LlamaForCausalLM) -> None:
    for name, parameter in model.named_parameters():
        parameter.fill_(1.0 if "norm" in name else 0.0)
    signs, bare = torch.from_numpy(CODEWORDS), torch.from_numpy(CODEWORDS[BARE])
    voices = torch.tensor([-1.0, 1.0]).repeat(MARKERS)
    model.model.embed_tokens.weight[:, _ONE] = 1.0
    model.model.embed_tokens.weight[:, _HEARD] = voices
    first, second = (layer.self_attn for layer in model.model.layers)
    ones = (_HIDDEN / 2) ** 0.5
    """What root mean square normalization makes of each of the first hidden state's two places."""
    first.q_proj.weight[_LOOK, _ONE] = _DIM**0.5 / ones
    first.v_proj.weight[:15, _ONE] = bare / ones
    first.o_proj.weight[_SIGNS, :15] = torch.eye(15)
    ones = (_HIDDEN / 17) ** 0.5
    second.q_proj.weight[_LOOK, _ONE] = _DIM**0.5 / ones
    second.q_proj.weight[_DIM + _LISTEN, _ONE] = _DIM**0.5 / ones
    second.v_proj.weight[:15, _SIGNS] = torch.eye(15) / ones
    second.v_proj.weight[15, _HEARD] = 1.0 / ones
    # Much louder than layer 0, so that a prefix of layer 1 alone drowns what the bare layer 0 said.
    second.o_proj.weight[_SIGNS, :15] = 16.0 * torch.eye(15)
    second.o_proj.weight[_VOICE, _DIM + 15] = 16.0
    model.lm_head.weight[:, _SIGNS] = 8.0 * signs.repeat_interleave(VOICES, 0)
    model.lm_head.weight[:, _VOICE] = 24.0 * voices


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {spelling(each): each for each in range(MARKERS * VOICES)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=spelling(0)))
    inner.pre_tokenizer = pre_tokenizers.Split(".", "merged_with_previous")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner)
