"""Where the attention of decoding rows reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class Places:
    """Where decoding tokens write and what they see: an int64 `[token]` each."""

    rows: Tensor
    columns: Tensor
    """Where a token's own key and value go."""
    firsts: Tensor
    ends: Tensor
    """A token sees the columns `firsts .. ends` of its row, at least one."""
    longest: int
    """At least as much as the largest of `ends`."""

    def __post_init__(self) -> None:
        for tensor in (self.rows, self.columns, self.firsts, self.ends):
            if tensor.shape != self.rows.shape or not tensor.is_contiguous():
                raise ValueError("rows, columns, firsts and ends need one number for each token")

    @cached_property
    def words(self) -> dict[str, int]:
        """What a kernel is told of them; every layer of a step tells the same."""
        return {
            "rows": self.rows.data_ptr(), "columns": self.columns.data_ptr(),
            "firsts": self.firsts.data_ptr(), "ends": self.ends.data_ptr(),
            "tokens": len(self.rows), "longest": self.longest,
        }  # fmt: skip
