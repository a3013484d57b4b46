"""Padding-free batches: rows lie one after another, padding exists only inside attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """How the rows of a flat batch `[1, sum(lengths)]` lie in a padded one `[row, longest]`.

    Linear layers and norms run on the flat batch, so no work is spent on padding; attention runs
    on the padded one, where it is a small part of the cost.
    """

    lengths: tuple[int, ...]
    index: Tensor
    """`[sum(lengths)]`: where each flat token lies in the padded batch read row by row."""
    _masks: dict[int | None, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Packing:
        longest = max(lengths)
        parts = [torch.arange(n, device=device) + row * longest for row, n in enumerate(lengths)]
        return cls(tuple(lengths), torch.cat(parts))

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def longest(self) -> int:
        return max(self.lengths)

    def positions(self) -> Tensor:
        """Position of each flat token within its row, `[1, sum(lengths)]`."""
        return (self.index % self.longest)[None]

    def unpack(self, flat: Tensor) -> Tensor:
        """`[1, head, sum(lengths), dim]` to `[row, head, longest, dim]`, padded with zeros."""
        heads, dim = flat.shape[1], flat.shape[3]
        size = self.rows * self.longest
        padded: Tensor = _Spread.apply(flat[0].transpose(0, 1), self.index, size)
        return padded.view(self.rows, self.longest, heads, dim).transpose(1, 2)

    def pack(self, padded: Tensor) -> Tensor:
        """`[row, longest, head, dim]` to `[1, sum(lengths), head, dim]`."""
        flat = padded.reshape(self.rows * self.longest, *padded.shape[2:])
        return flat.index_select(0, self.index).unsqueeze(0)

    def placeholder_mask(self) -> Tensor:
        """What to pass as `attention_mask`: a 4D mask makes transformers skip building its own."""
        return torch.zeros(1, 1, 1, 1, device=self.index.device)

    def causal_mask(self, window: int | None) -> Tensor:
        """`[1, 1, longest, longest]`, the same for every row: padding only ever comes after."""
        if window not in self._masks:
            mask = torch.ones(
                self.longest, self.longest, dtype=torch.bool, device=self.index.device
            ).tril()
            if window is not None:
                mask = mask.triu(1 - window)
            self._masks[window] = mask[None, None]
        return self._masks[window]


class _Spread(torch.autograd.Function):
    """Rows of a tensor put at `index` of a larger one, zeros elsewhere.

    torch's own `index_copy` would keep its source for the backward pass only to know its shape.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, size: int) -> Tensor:
        ctx.index = index
        return rows.new_zeros(size, *rows.shape[1:]).index_copy_(0, index, rows)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        return upstream.index_select(0, ctx.index), None, None
