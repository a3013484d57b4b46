"""Where the attention of decoding rows reads and writes."""

from __future__ import annotations

from dataclasses import dataclass

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
