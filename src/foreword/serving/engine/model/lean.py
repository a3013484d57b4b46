"""The forward pass of llama-shaped decoders, written out: fused projections, packed weights.

Covers Llama, Mistral, Qwen2 and Qwen3 (rotary positions, RMS norm, gated SiLU). It reads the weights
of the model that is loaded and computes what its modules compute; the runner proves that on real
tokens before it is used. Every other decoder runs through its own modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from foreword.serving.engine.model.attention import Scoring, Step
from foreword.serving.engine.model.packed import PackedLinear

_FAMILIES = {
    "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
}  # fmt: skip


@dataclass(frozen=True)
class _Norm:
    weight: Tensor
    eps: float

    @classmethod
    def of(cls, module: Any) -> _Norm:
        return cls(module.weight.detach(), float(module.variance_epsilon))

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


@dataclass(frozen=True)
class _Layer:
    before_attention: _Norm
    qkv: PackedLinear
    query_norm: _Norm | None
    key_norm: _Norm | None
    out: PackedLinear
    before_mlp: _Norm
    gate_up: PackedLinear
    down: PackedLinear
    heads: int
    kv_heads: int
    scoring: Scoring


class LeanDecoder:
    """`__call__(step)` gives the logits of every piece's last token, `[piece, vocabulary]`."""

    def __init__(self, model: PreTrainedModel, pack: bool) -> None:
        inner: Any = model.model
        self._embedding: Tensor = inner.embed_tokens.weight.detach()
        self._rotary: nn.Module = inner.rotary_emb
        self._layers = [_layer(layer, pack) for layer in inner.layers]
        self._norm = _Norm.of(inner.norm)
        self._head = PackedLinear.of(model.lm_head, pack=pack)

    def __call__(self, step: Step) -> Tensor:
        x = F.embedding(step.ids, self._embedding)
        cos, sin = self._rotary(x[None], step.positions[None])
        turn = (cos[0, :, None], _half_negated(sin[0, :, None]))
        for index, layer in enumerate(self._layers):
            x = x + _attend(layer, index, layer.before_attention(x), turn, step)
            gate, up = layer.gate_up(layer.before_mlp(x)).chunk(2, -1)
            x = x + layer.down(F.silu(gate) * up)
        return self._head(self._norm(x[step.last]))


def lean_decoder(model: PreTrainedModel, pack: bool) -> LeanDecoder | None:
    """The written-out pass of this model, or None if it is not one of the families."""
    if type(model).__name__ not in _FAMILIES or getattr(model.config, "hidden_act", "") != "silu":
        return None
    return LeanDecoder(model, pack)


def _layer(layer: Any, pack: bool) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    dim = attention.head_dim
    window = getattr(attention, "sliding_window", None)
    if type(attention).__name__ == "MistralAttention":
        window = attention.config.sliding_window
    return _Layer(
        before_attention=_Norm.of(layer.input_layernorm),
        qkv=PackedLinear.of(attention.q_proj, attention.k_proj, attention.v_proj, pack=pack),
        query_norm=_Norm.of(attention.q_norm) if hasattr(attention, "q_norm") else None,
        key_norm=_Norm.of(attention.k_norm) if hasattr(attention, "k_norm") else None,
        out=PackedLinear.of(attention.o_proj, pack=pack),
        before_mlp=_Norm.of(layer.post_attention_layernorm),
        gate_up=PackedLinear.of(mlp.gate_proj, mlp.up_proj, pack=pack),
        down=PackedLinear.of(mlp.down_proj, pack=pack),
        heads=attention.q_proj.out_features // dim,
        kv_heads=attention.k_proj.out_features // dim,
        scoring=Scoring(scale=float(attention.scaling), window=window),
    )


def _attend(
    layer: _Layer, index: int, x: Tensor, turn: tuple[Tensor, Tensor], step: Step
) -> Tensor:
    heads, kv_heads = layer.heads, layer.kv_heads
    qkv = layer.qkv(x).view(x.shape[0], heads + 2 * kv_heads, -1)
    turned = qkv[:, : heads + kv_heads]
    if layer.query_norm is not None and layer.key_norm is not None:
        turned = torch.cat(
            [layer.query_norm(turned[:, :heads]), layer.key_norm(turned[:, heads:])], dim=1
        )
    cos, sin = turn
    turned = turned * cos + turned.roll(turned.shape[-1] // 2, -1) * sin
    value = qkv[:, heads + kv_heads :]
    out = step.attend(index, turned[:, :heads], turned[:, heads:], value, layer.scoring)
    return layer.out(out.flatten(1))


def _half_negated(sin: Tensor) -> Tensor:
    """Rotation by halves: `(x1, x2)` turns with `(-x2, x1)`, so the first half's sine is negative.

    Rolling a vector by half its width swaps the halves, which leaves only the sign to be put here.
    """
    half = sin.shape[-1] // 2
    return torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
