"""Attention of one engine step: each token sees its own request's prefix and earlier tokens.

A step's tokens lie flat, `[token, head, dim]`. Where products want other numbers of rows (`evened.py`),
some that nobody reads come last; they attend to nothing. Decoding rows of one arena are attended
together, straight from the arena; a piece of a prompt is attended alone. A long prefix is not in its
requests' rows: it is attended once for all rows that use it, and the two parts are joined by their
log-sum-exp (as in FlashAttention's split over keys, Dao 2023, section 3).

Within a row, column `j` is position `j + virtual`, where `virtual` is 0 if the row begins with a
copy of its prefix, and m if the prefix is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from foreword.artifact import Site
from foreword.prefix.kv import LayerKV, PrefixKV
from foreword.serving.engine.model.native.places import Places
from foreword.serving.engine.model.rows import Arena, Row

if TYPE_CHECKING:
    from foreword.serving.engine.model.native.operations import Native

_Sight = tuple[int | None, tuple[int, ...]]
"""What decides which columns a step's tokens see in a layer: its window, who lacks it."""


@dataclass(frozen=True)
class Scoring:
    """How a layer turns products into weights."""

    scale: float
    window: int | None = None
    """A query sees keys less than this many positions back."""
    softcap: float | None = None
    """Scores become `softcap * tanh(score / softcap)` (gemma 2)."""


@dataclass(frozen=True)
class Piece:
    """Tokens of one sample in one step."""

    row: Row
    tokens: Sequence[int]
    column: int
    """Where in the row the first of them is written."""
    prefix: PrefixKV | None
    shared: bool
    """The prefix is not in the row."""

    @property
    def virtual(self) -> int:
        return self.prefix.length if self.prefix is not None and self.shared else 0

    @property
    def position(self) -> int:
        return self.column + self.virtual


def as_many(rows: int) -> int:
    """No more rows than there are."""
    return rows


class Step:
    """Where every token of a step lies, and its attention. `pieces` of one token decode.

    `fit` says how many rows products are given where there are so many.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        device: torch.device,
        native: Native | None = None,
        fit: Callable[[int], int] = as_many,
    ) -> None:
        decoding: dict[int, list[int]] = {}
        prompts: list[int] = []
        for i, piece in enumerate(pieces):
            if len(piece.tokens) == 1:
                decoding.setdefault(piece.row.arena.capacity, []).append(i)
            else:
                prompts.append(i)
        order = [i for group in decoding.values() for i in group] + prompts
        flat = [pieces[i] for i in order]
        ends, total = [0] * len(pieces), 0
        self._parts: list[_Decoding | _Prompt] = []
        for group in decoding.values():
            chosen = [pieces[i] for i in group]
            at = slice(total, total + len(chosen))
            self._parts.append(_Decoding(chosen, at, device, native))
            total += len(chosen)
        for i in prompts:
            count = len(pieces[i].tokens)
            self._parts.append(_Prompt(pieces[i], slice(total, total + count), device))
            total += count
        end = 0
        for i in order:
            end += len(pieces[i].tokens)
            ends[i] = end - 1
        self._added = fit(total) - total
        places = [p.position + i for p in flat for i in range(len(p.tokens))]
        tokens = [t for p in flat for t in p.tokens]
        self.ids = torch.tensor(tokens + [0] * self._added, device=device)
        self.positions = torch.tensor(places + [0] * self._added, device=device)
        more = [0] * (fit(len(ends)) - len(ends))
        self.last = torch.tensor(ends + more, device=device)
        """Of every piece, in the order given: the flat index of its last token; then some to fit."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Write the step's keys and values, and attend.

        `query [token, head, key_dim]`, `key [token, kv_head, key_dim]`, `value [token, kv_head,
        value_dim]`; returns `[token, head, value_dim]`, zero for the tokens that were added.
        """
        if len(self._parts) == 1 and not self._added:
            return self._parts[0].attend(layer, query, key, value, scoring)
        parts = [
            part.attend(layer, query[part.at], key[part.at], value[part.at], scoring)
            for part in self._parts
        ]
        if self._added:
            parts.append(parts[0].new_zeros(self._added, *parts[0].shape[1:]))
        return torch.cat(parts)


@dataclass
class _Decoding:
    """One new token for each of some rows of an arena."""

    pieces: Sequence[Piece]
    at: slice
    device: torch.device
    native: Native | None
    _masks: dict[_Sight, Tensor | None] = field(default_factory=dict)
    _places: dict[_Sight, Places] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.arena: Arena = self.pieces[0].row.arena
        rows = [p.row.index for p in self.pieces]
        self.rows = torch.tensor(rows, device=self.device)
        self.columns = torch.tensor([p.column for p in self.pieces], device=self.device)
        self.longest = 1 + max(p.column for p in self.pieces)
        self.dense = rows == list(range(self.arena.used))
        # Rows that do not decode now get one visible column and an answer nobody reads.
        self.lengths = torch.ones(self.arena.used, dtype=torch.long, device=self.device)
        self.lengths[self.rows] = self.columns + 1
        self.shared = _shared(self.pieces)
        self._with_gaps = [
            i for i, p in enumerate(self.pieces) if p.prefix is not None and not p.shared
            and len(p.prefix.layers[Site.DECODER]) < len(self.arena.keys)
        ]  # fmt: skip

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        count, heads, dim = query.shape
        shape = count, key.shape[1], heads // key.shape[1], dim
        if self.native is not None and scoring.softcap is None:
            arena = self.arena.keys[layer], self.arena.values[layer]
            places = self._place(layer, scoring.window)
            out, lse = self.native.attend((query, key, value), arena, places, scoring.scale)
            if not self.shared:
                return out
            grouped = query.reshape(shape)
            out, lse = out.view(*shape[:3], -1), lse.view(shape[:3])
        else:
            grouped = query.reshape(shape)
            out, lse = self._by_torch(layer, grouped, key, value, scoring)
        for prefix, chosen in self.shared:
            if (kv := prefix.layers[Site.DECODER].get(layer)) is not None:
                self._join(out, lse, grouped, kv, chosen, scoring)
        return out.reshape(count, heads, value.shape[2])

    def _by_torch(
        self, layer: int, grouped: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> tuple[Tensor, Tensor]:
        """`[row, kv_head, group, value_dim]` and the log-sum-exp of the scores, which is empty where no
        shared prefix will ask for it."""
        keys, values = self.arena.keys[layer], self.arena.values[layer]
        keys[self.rows, :, self.columns] = key
        values[self.rows, :, self.columns] = value
        used, seen = self.arena.used, slice(0, self.longest)
        if not self.dense:
            every = grouped.new_zeros(used, *grouped.shape[1:])
            every[self.rows] = grouped
        own = (
            grouped if self.dense else every, keys[:used, :, seen], values[:used, :, seen],
            self._mask(layer, scoring.window, grouped), scoring,
        )  # fmt: skip
        if not self.shared:
            out = _attention(*own)
            return out if self.dense else out[self.rows], out.new_empty(0)
        out, lse = (part if self.dense else part[self.rows] for part in _with_lse(*own))
        return out, lse

    def _absent(self, layer: int) -> tuple[int, ...]:
        """The pieces whose row begins with a prefix that has nothing for this layer."""
        return tuple(
            i for i in self._with_gaps
            if (prefix := self.pieces[i].prefix) and layer not in prefix.layers[Site.DECODER]
        )  # fmt: skip

    def _place(self, layer: int, window: int | None) -> Places:
        absent = self._absent(layer)
        if (window, absent) not in self._places:
            ends = self.lengths[self.rows]
            firsts = torch.zeros_like(ends) if window is None else (ends - window).clamp_(min=0)
            for i in absent:
                prefix = self.pieces[i].prefix
                firsts[i] = max(int(firsts[i]), prefix.length if prefix else 0)
            self._places[window, absent] = Places(
                self.rows, self.columns, firsts, ends, self.longest
            )
        return self._places[window, absent]

    def _mask(self, layer: int, window: int | None, like: Tensor) -> Tensor | None:
        """Additive `[row, 1, 1, column]`; None if every row sees every column."""
        absent = self._absent(layer)
        if (window, absent) not in self._masks:
            columns = torch.arange(self.longest, device=self.device)
            visible = columns < self.lengths[:, None]
            if window is not None:
                visible &= columns >= self.lengths[:, None] - window
            for i in absent:
                piece = self.pieces[i]
                visible[piece.row.index, : piece.prefix.length if piece.prefix else 0] = False
            self._masks[window, absent] = None if bool(visible.all()) else _additive(visible, like)
        return self._masks[window, absent]

    def _join(
        self,
        out: Tensor,
        lse: Tensor,
        grouped: Tensor,
        kv: LayerKV,
        chosen: Tensor,
        scoring: Scoring,
    ) -> None:
        """Add what the chosen rows see of a shared prefix: one product for all of them."""
        rows, kv_heads, group, dim = grouped[chosen].shape
        queries = grouped[chosen].transpose(0, 1).reshape(1, kv_heads, rows * group, dim)
        length = kv.key.shape[1]
        mask = None
        if scoring.window is not None:
            positions = self.columns[chosen] + length
            near = torch.arange(length, device=self.device) > positions[:, None] - scoring.window
            mask = _additive(near.repeat_interleave(group, 0), grouped)[:, 0, 0][None, None]
        seen, seen_lse = _with_lse(queries, *_batch(kv, queries), mask, scoring)
        seen = seen.view(kv_heads, rows, group, -1).transpose(0, 1)
        seen_lse = seen_lse.view(kv_heads, rows, group).transpose(0, 1)
        out[chosen] = _joined(out[chosen], lse[chosen], seen, seen_lse)


@dataclass
class _Prompt:
    """Several tokens of one row."""

    piece: Piece
    at: slice
    device: torch.device
    _masks: dict[tuple[int | None, bool], Tensor] = field(default_factory=dict)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        piece = self.piece
        arena, index = piece.row.arena, piece.row.index
        count, heads, dim = query.shape
        end = piece.column + count
        keys, values = arena.keys[layer][index], arena.values[layer][index]
        keys[:, piece.column : end] = key.transpose(0, 1)
        values[:, piece.column : end] = value.transpose(0, 1)
        kv_heads = key.shape[1]
        group = heads // kv_heads
        # Heads that share keys lie one after another: `[kv_head, group * token, dim]`.
        queries = query.view(count, kv_heads, group, dim).permute(1, 2, 0, 3)
        queries = queries.reshape(1, kv_heads, group * count, dim)
        kv = piece.prefix.layers[Site.DECODER].get(layer) if piece.prefix is not None else None
        hidden = piece.prefix is not None and not piece.shared and kv is None
        mask = self._mask(scoring.window, hidden, group, query)
        own = (queries, keys[None, :, :end], values[None, :, :end], mask, scoring)
        if piece.shared and kv is not None:
            front = self._front(kv.key.shape[1], scoring.window, group, query)
            out = _joined(
                *_with_lse(*own), *_with_lse(queries, *_batch(kv, queries), front, scoring)
            )
        else:
            out = _attention(*own)
        out = out.view(kv_heads, group, count, -1).permute(2, 0, 1, 3)
        return out.reshape(count, heads, value.shape[2])

    def _mask(self, window: int | None, hidden: bool, group: int, like: Tensor) -> Tensor:
        """Additive `[1, 1, group * token, column]`: causal, within the window."""
        if (window, hidden) not in self._masks:
            count, first = len(self.piece.tokens), self.piece.column
            columns = torch.arange(first + count, device=self.device)
            own = torch.arange(first, first + count, device=self.device)[:, None]
            visible = columns <= own
            if window is not None:
                visible &= columns > own - window
            if hidden and self.piece.prefix is not None:
                visible[:, : self.piece.prefix.length] = False
            mask = _additive(visible.repeat(group, 1), like)[:, 0, 0][None, None]
            self._masks[window, hidden] = mask
        return self._masks[window, hidden]

    def _front(self, length: int, window: int | None, group: int, like: Tensor) -> Tensor | None:
        """What a token sees of its shared prefix; None if all of it."""
        if window is None:
            return None
        count = len(self.piece.tokens)
        own = torch.arange(count, device=self.device)[:, None] + self.piece.position
        near = torch.arange(length, device=self.device) > own - window
        return _additive(near.repeat(group, 1), like)[:, 0, 0][None, None]


def _shared(pieces: Sequence[Piece]) -> list[tuple[PrefixKV, Tensor]]:
    """Every distinct shared prefix with the indices of the pieces that use it."""
    users: dict[int, tuple[PrefixKV, list[int]]] = {}
    for i, piece in enumerate(pieces):
        if piece.shared and piece.prefix is not None:
            users.setdefault(id(piece.prefix), (piece.prefix, []))[1].append(i)
    return [(prefix, torch.tensor(which, device=prefix.device)) for prefix, which in users.values()]


def _batch(kv: LayerKV, like: Tensor) -> tuple[Tensor, Tensor]:
    """A shared prefix's key and value as a batch of one, in the model's dtype."""
    return kv.key[None].to(like.dtype), kv.value[None].to(like.dtype)


def _additive(visible: Tensor, like: Tensor) -> Tensor:
    """`[row, column]` to `[row, 1, 1, column]`: 0 where visible, the lowest number elsewhere.

    Not minus infinity: a row that sees nothing of a shared prefix would become NaN there.
    """
    mask = torch.zeros(visible.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(~visible, torch.finfo(like.dtype).min)[:, None, None]


def _attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scoring: Scoring
) -> Tensor:
    """`[row, head, query, dim]`."""
    if scoring.softcap is not None:
        return _with_lse(query, key, value, mask, scoring)[0]
    return F.scaled_dot_product_attention(query, key, value, mask, scale=scoring.scale)


def _with_lse(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scoring: Scoring
) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its scores, `[row, head, query]`."""
    on_cpu = query.device.type == "cpu" and query.shape[3] == value.shape[3]
    if on_cpu and scoring.softcap is None:
        fused: tuple[Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=mask, scale=scoring.scale
        )
        return fused
    scores = torch.matmul(query, key.transpose(2, 3)) * scoring.scale
    if scoring.softcap is not None:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    scores = scores.float() if mask is None else scores.float() + mask
    total = scores.logsumexp(-1)
    weights = torch.exp(scores - total[..., None]).to(value.dtype)
    return torch.matmul(weights, value), total


def _joined(first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor) -> Tensor:
    """Attention over two sets of keys from the attention over each."""
    share = torch.sigmoid(first_lse - second_lse)[..., None].to(first.dtype)
    return first * share + second * (1 - share)
