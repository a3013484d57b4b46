"""The forward pass of llama-shaped decoders, written out: fused projections, packed weights.

Covers Llama, Mistral, Qwen2 and Qwen3 (rotary positions, RMS norm, gated SiLU). It reads the weights
of the model that is loaded and computes what its modules compute; the runner proves that on real
tokens before it is used. Every other decoder runs through its own modules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from foreword.serving.engine.model.attention import Scoring, Step
from foreword.serving.engine.model.between import Angles, Between, Eager
from foreword.serving.engine.model.norms import Norm
from foreword.serving.engine.model.packed import PackedLinear

if TYPE_CHECKING:
    from foreword.serving.engine.model.native.operations import Native

_FAMILIES = {
    "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
}  # fmt: skip


@dataclass(frozen=True)
class _Layer:
    before_attention: Norm
    qkv: PackedLinear
    head_norms: tuple[Norm, Norm] | None
    """Of queries and of keys."""
    out: PackedLinear
    before_mlp: Norm
    gate_up: PackedLinear
    down: PackedLinear
    heads: tuple[int, int]
    """Of queries and of keys."""
    scoring: Scoring


class LeanDecoder:
    """`__call__(step)` gives the logits at `step.last`, `[piece, vocabulary]`."""

    def __init__(self, model: PreTrainedModel, native: Native | None, pack: bool) -> None:
        self.linears: list[PackedLinear] = []

        def linear(*layers: nn.Linear) -> PackedLinear:
            self.linears.append(PackedLinear(layers, pack, native))
            return self.linears[-1]

        inner: Any = model.model
        self._between: Between = native or Eager()
        self._embedding: Tensor = inner.embed_tokens.weight.detach()
        self._rotary: nn.Module = inner.rotary_emb
        self._layers = [_layer(layer, linear) for layer in inner.layers]
        self._norm = Norm.of(inner.norm)
        self._head = linear(model.lm_head)

    def __call__(self, step: Step) -> Tensor:
        between = self._between
        x = F.embedding(step.ids, self._embedding)
        cos, sin = self._rotary(x[None], step.positions[None])
        angles = between.angles(cos[0], sin[0])
        delta = None
        for index, layer in enumerate(self._layers):
            normed = between.add_norm(x, delta, layer.before_attention)
            seen = self._attended(layer, index, layer.qkv(normed), angles, step)
            normed = between.add_norm(x, layer.out(seen), layer.before_mlp)
            delta = layer.down(between.gated(layer.gate_up(normed)))
        return self._head(between.add_norm(x, delta, self._norm)[step.last])

    def _attended(
        self, layer: _Layer, index: int, qkv: Tensor, angles: Angles, step: Step
    ) -> Tensor:
        queries, keys = layer.heads
        qkv = qkv.view(qkv.shape[0], queries + 2 * keys, -1)
        turned = self._between.turned(qkv, angles, layer.heads, layer.head_norms)
        value = qkv[:, queries + keys :]
        seen = step.attend(index, turned[:, :queries], turned[:, queries:], value, layer.scoring)
        return seen.flatten(1)


def lean_decoder(model: PreTrainedModel, native: Native | None, pack: bool) -> LeanDecoder | None:
    """The written-out pass of this model, or None if it is not one of the families."""
    if type(model).__name__ not in _FAMILIES or getattr(model.config, "hidden_act", "") != "silu":
        return None
    return LeanDecoder(model, native, pack)


def _layer(layer: Any, linear: Callable[..., PackedLinear]) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    dim = attention.head_dim
    window = getattr(attention, "sliding_window", None)
    if type(attention).__name__ == "MistralAttention":
        window = attention.config.sliding_window
    return _Layer(
        before_attention=Norm.of(layer.input_layernorm),
        qkv=linear(attention.q_proj, attention.k_proj, attention.v_proj),
        head_norms=_head_norms(attention),
        out=linear(attention.o_proj),
        before_mlp=Norm.of(layer.post_attention_layernorm),
        gate_up=linear(mlp.gate_proj, mlp.up_proj),
        down=linear(mlp.down_proj),
        heads=(attention.q_proj.out_features // dim, attention.k_proj.out_features // dim),
        scoring=Scoring(scale=float(attention.scaling), window=window),
    )


def _head_norms(attention: Any) -> tuple[Norm, Norm] | None:
    if not hasattr(attention, "q_norm"):
        return None
    return Norm.of(attention.q_norm), Norm.of(attention.k_norm)
