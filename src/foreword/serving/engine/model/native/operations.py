"""What lies between the matrix products of a step, on float32 tensors of a CPU.

Everything is read and written where it lies. A kernel knows only addresses, so shapes and strides
are checked here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foreword.serving.engine.model.native import kernels
from foreword.serving.engine.model.native.parts import Parts
from foreword.serving.engine.model.native.places import Places
from foreword.serving.engine.model.native.team import Team
from foreword.serving.engine.model.norms import Norm


class Native:
    """What `between.Between` says, the attention of decoding rows, and products with few rows.

    Raises:
        OSError: torch does not run on GNU OpenMP here.
    """

    def __init__(self) -> None:
        self._team = Team()

    def linear(self, x: Tensor, parts: Parts) -> Tensor:
        """`[token, in]` to `[token, out]`; meant for a token or two."""
        tokens, inputs = x.shape
        _expect(x, tokens, parts.inputs)
        out = x.new_empty(tokens, parts.outputs)
        self._team.run(
            kernels.linear, inputs * parts.outputs,
            x=x.data_ptr(), out=out.data_ptr(), table=parts.table.data_ptr(),
            rows=tokens, inputs=inputs, outputs=parts.outputs, parts=len(parts.table),
        )  # fmt: skip
        return out

    def add_norm(self, x: Tensor, delta: Tensor | None, norm: Norm) -> Tensor:
        tokens, dim = x.shape
        _expect(x, tokens, dim)
        _expect(norm.weight, dim)
        if delta is not None:
            _expect(delta, tokens, dim)
        out = torch.empty_like(x)
        self._team.run(
            kernels.add_norm, x.numel(),
            x=x.data_ptr(), delta=0 if delta is None else delta.data_ptr(),
            weight=norm.weight.data_ptr(), out=out.data_ptr(), rows=tokens, dim=dim, eps=norm.eps,
        )  # fmt: skip
        return out

    def angles(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return cos.contiguous(), sin.contiguous()

    def turned(
        self,
        qkv: Tensor,
        angles: tuple[Tensor, Tensor],
        heads: tuple[int, int],
        norms: tuple[Norm, Norm] | None,
    ) -> Tensor:
        tokens, every, dim = qkv.shape
        cos, sin = angles
        _expect(qkv, tokens, every, dim)
        _expect(cos, tokens, dim)
        _expect(sin, tokens, dim)
        for norm in norms or ():
            _expect(norm.weight, dim)
        self._team.run(
            kernels.turn, qkv.numel(),
            x=qkv.data_ptr(), cos=cos.data_ptr(), sin=sin.data_ptr(), tokens=tokens, heads=every,
            queries=heads[0], keys=heads[1], dim=dim, **_norm_words(norms),
        )  # fmt: skip
        return qkv[:, : sum(heads)]

    def gated(self, both: Tensor) -> Tensor:
        tokens, dim = both.shape[0], both.shape[1] // 2
        _expect(both, tokens, 2 * dim)
        out = both.new_empty(tokens, dim)
        self._team.run(
            kernels.gate, both.numel(),
            both=both.data_ptr(), out=out.data_ptr(), rows=tokens, dim=dim,
        )  # fmt: skip
        return out

    def attend(
        self,
        step: tuple[Tensor, Tensor, Tensor],
        arena: tuple[Tensor, Tensor],
        places: Places,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        """Write one key and value for every token, and attend to what its row holds.

        `step`: query, key and value `[token, head, dim]`; `arena`: keys and values
        `[row, kv_head, capacity, dim]`. Returns `[token, head, value_dim]` and the log-sum-exp of
        the scores, `[token, head]`.
        """
        query, key, value = (_heads(tensor) for tensor in step)
        (tokens, heads, key_dim), (_, kv_heads, value_dim) = query.shape, value.shape
        _fits(query, key, value, arena, places)
        out, lse = query.new_empty(tokens, heads, value_dim), query.new_empty(tokens, heads)
        numbers = tokens * kv_heads * places.longest * (key_dim + value_dim)
        scratch = query.new_empty(
            self._team.threads(numbers), heads // kv_heads, key_dim + places.longest
        )
        self._team.run(
            kernels.attend, numbers,
            query=query.data_ptr(), query_token=query.stride(0), query_head=query.stride(1),
            key=key.data_ptr(), key_token=key.stride(0), key_head=key.stride(1),
            value=value.data_ptr(), value_token=value.stride(0), value_head=value.stride(1),
            arena_keys=arena[0].data_ptr(), arena_values=arena[1].data_ptr(),
            out=out.data_ptr(), lse=lse.data_ptr(), scratch=scratch.data_ptr(),
            heads=heads, kv_heads=kv_heads, key_dim=key_dim, value_dim=value_dim,
            capacity=arena[0].shape[2], scale=scale, **places.words,
        )  # fmt: skip
        return out, lse


def _fits(
    query: Tensor, key: Tensor, value: Tensor, arena: tuple[Tensor, Tensor], places: Places
) -> None:
    (tokens, heads, key_dim), (_, kv_heads, value_dim) = query.shape, value.shape
    rows, _, capacity, _ = arena[0].shape
    _expect(arena[0], rows, kv_heads, capacity, key_dim)
    _expect(arena[1], rows, kv_heads, capacity, value_dim)
    _expect(places.rows, tokens)
    if key.shape != (tokens, kv_heads, key_dim) or heads % kv_heads or places.longest > capacity:
        raise ValueError(f"{query.shape}, {key.shape} and {arena[0].shape} do not go together")


def _expect(tensor: Tensor, *shape: int) -> None:
    if tensor.shape != shape or not tensor.is_contiguous():
        raise ValueError(f"expected {shape}, one after another, and came {tuple(tensor.shape)}")


def _heads(tensor: Tensor) -> Tensor:
    """The same, with the numbers of every head one after another."""
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()


def _norm_words(norms: tuple[Norm, Norm] | None) -> dict[str, float]:
    if norms is None:
        return {}
    (query, query_eps), (key, key_eps) = norms
    return {
        "query_norm": query.data_ptr(), "query_norm_eps": query_eps,
        "key_norm": key.data_ptr(), "key_norm_eps": key_eps,
    }  # fmt: skip
