"""Where running requests keep their keys and values: rows of a few capacities, packed densely.

An arena holds rows of one capacity. Column `j` of a row is position `j` of its request, so a prefix
that is copied in takes columns 0..m-1 and real tokens follow. Rows in use are always the first ones
of their arena: a decode step reads `[:used]` of one tensor, with nothing gathered or copied.

    arena (capacity 256)     row 0   [ prefix | prompt | generated .... | free ]
                             row 1   [ prompt | generated | free .............. ]
                             used -> ------------------------------------------
                             row 2   [ allocated, free ........................ ]

Bytes are reserved in the ledger before a tensor is made and returned when it is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.artifact import LayerGeometry, Site
from foreword.errors import EngineFailed
from foreword.prefix.kv import PrefixKV
from foreword.serving.engine.model import pages
from foreword.serving.engine.waiting.ledger import Ledger, Reservation

_log = logging.getLogger(__name__)
SMALLEST = 64
"""Capacity of the smallest rows; every further class is twice as large."""


@dataclass(frozen=True)
class Snapshot:
    """Keys and values of some tokens, copied out of a row: per layer `[kv_head, token, dim]`."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def tokens(self) -> int:
        return self.layers[0][0].shape[1]


class Row:
    """A place for one sample's keys and values. Its index changes when other rows leave."""

    __slots__ = ("arena", "index")

    def __init__(self, arena: Arena, index: int) -> None:
        self.arena = arena
        self.index = index

    def layers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Key and value `[kv_head, capacity, dim]` of every layer; views, to read and write."""
        for key, value in zip(self.arena.keys, self.arena.values, strict=True):
            yield key[self.index], value[self.index]

    def write_prefix(self, prefix: PrefixKV) -> None:
        """Copy a prefix into columns 0..m-1. A layer it lacks keeps what is there, to be masked."""
        layers = prefix.layers[Site.DECODER]
        for index, (key, value) in enumerate(self.layers()):
            if (kv := layers.get(index)) is not None:
                key[:, : prefix.length].copy_(kv.key)
                value[:, : prefix.length].copy_(kv.value)

    def snapshot(self, first: int, tokens: int) -> Snapshot:
        """Columns `first .. first + tokens`, copied."""
        part = slice(first, first + tokens)
        return Snapshot(tuple((k[:, part].clone(), v[:, part].clone()) for k, v in self.layers()))

    def restore(self, first: int, saved: Snapshot, tokens: int) -> None:
        """The first `tokens` of a snapshot into columns from `first` on."""
        part = slice(first, first + tokens)
        for (key, value), (k, v) in zip(self.layers(), saved.layers, strict=True):
            key[:, part].copy_(k[:, :tokens])
            value[:, part].copy_(v[:, :tokens])

    def clear(self) -> None:
        """Zeros in every column: a masked number is multiplied by 0, which a NaN would survive."""
        for key, value in self.layers():
            key.zero_()
            value.zero_()

    def copy_from(self, other: Row, columns: int) -> None:
        """The first columns of another row: samples of one request share their prompt."""
        for (key, value), (k, v) in zip(self.layers(), other.layers(), strict=True):
            key[:, :columns].copy_(k[:, :columns])
            value[:, :columns].copy_(v[:, :columns])


class Arena:
    """Rows of one capacity. Per layer a key and a value `[row, kv_head, capacity, dim]`."""

    def __init__(self, pool: RowPool, capacity: int, reservation: Reservation) -> None:
        self.pool = pool
        self.capacity = capacity
        self.reservation = reservation
        self.rows: list[Row] = []
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._touched = 0
        """Rows from here on are as they were allocated, or wiped."""

    @property
    def used(self) -> int:
        return len(self.rows)

    @property
    def allocated(self) -> int:
        return self.keys[0].shape[0] if self.keys else 0

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def take(self) -> Row:
        row = Row(self, self.used)
        self.rows.append(row)
        self._touched = max(self._touched, self.used)
        return row

    def give_back(self, row: Row) -> None:
        """Close the gap: the last row moves into the place that became free."""
        last = self.rows.pop()
        if last is not row:
            for tensor in (*self.keys, *self.values):
                tensor[row.index].copy_(tensor[last.index])
            self.rows[row.index] = last
            last.index = row.index
        row.index = -1

    def wipe_free(self) -> None:
        """Zero what rows left behind, after a request whose numbers were not finite.

        A row that moves into a gap leaves a copy of itself, and `Row.clear` does not find it.
        """
        for tensor in (*self.keys, *self.values):
            tensor[self.used : self._touched].zero_()
        self._touched = self.used

    def resize(self, rows: int) -> None:
        """Make room for so many rows; if there is no memory for all of it, nothing changes."""
        keys = [self._resized(t, rows) for t in self.keys] or self._fresh(rows, "key_dim")
        values = [self._resized(t, rows) for t in self.values] or self._fresh(rows, "value_dim")
        self.keys, self.values = keys, values

    def drop(self) -> None:
        self.keys, self.values = [], []

    def _resized(self, old: Tensor, rows: int) -> Tensor:
        new = pages.zeros((rows, *old.shape[1:]), old.dtype, old.device)
        new[: self.used].copy_(old[: self.used])
        return new

    def _fresh(self, rows: int, dim: str) -> list[Tensor]:
        # Zeros, not empty: a masked column is multiplied by 0, and 0 times NaN would be NaN.
        return [
            pages.zeros(
                (rows, g.kv_heads, self.capacity, getattr(g, dim)), self.pool.dtype, self.pool.device
            )
            for g in self.pool.layers
        ]  # fmt: skip


class RowPool:
    """All arenas of an engine, within a budget of bytes."""

    def __init__(
        self,
        layers: Mapping[int, LayerGeometry],
        dtype: torch.dtype,
        device: torch.device,
        ledger: Ledger,
        most_rows: int,
    ) -> None:
        self.layers = [layers[i] for i in sorted(layers)]
        self.dtype = dtype
        self.device = device
        self.ledger = ledger
        self.most_rows = most_rows
        self.arenas: dict[int, Arena] = {}

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values over all layers."""
        values = sum(g.kv_heads * (g.key_dim + g.value_dim) for g in self.layers)
        return values * self.dtype.itemsize

    def ever_fits(self, tokens: int, rows: int) -> bool:
        """Whether `rows` rows for `tokens` tokens would fit an empty pool."""
        return capacity_for(tokens) * rows * self.token_bytes <= self.ledger.budget

    def reserve(self, tokens: int, rows: int) -> list[Row] | None:
        """Rows for one request, or None if there is no room now."""
        arena = self._arena(capacity_for(tokens))
        if arena is None:
            return None
        if arena.used + rows > arena.allocated and not self._grow(arena, arena.used + rows):
            return None
        return [arena.take() for _ in range(rows)]

    def release(self, row: Row) -> None:
        if row.index < 0 or row.arena.rows[row.index] is not row:
            raise EngineFailed("a row was given back twice", code="engine.integrity")
        row.arena.give_back(row)

    def _arena(self, capacity: int) -> Arena | None:
        if capacity not in self.arenas:
            reservation = self.ledger.reserve(f"rows.{capacity}", 0)
            if reservation is None:
                return None
            self.arenas[capacity] = Arena(self, capacity, reservation)
        return self.arenas[capacity]

    def _grow(self, arena: Arena, needed: int) -> bool:
        """Double an arena's rows, or add just what is needed, if the bytes can be had."""
        if not arena.used:
            self._drop(arena)
        for rows in (min(max(needed, 2 * arena.allocated), max(needed, self.most_rows)), needed):
            # While an arena moves, the old tensors and the new ones exist together.
            if self._reserve_bytes(arena, rows) and self._resize(arena, rows):
                return True
        return False

    def _resize(self, arena: Arena, rows: int) -> bool:
        """False if the machine has less memory than the budget says; the next step tries again."""
        try:
            arena.resize(rows)
        except (MemoryError, RuntimeError) as error:  # RuntimeError: how torch says it
            _log.warning("no memory for %d rows of %d tokens: %r", rows, arena.capacity, error)
            return False
        finally:
            self.ledger.resize(arena.reservation, arena.nbytes)
        return True

    def _reserve_bytes(self, arena: Arena, rows: int) -> bool:
        wanted = arena.nbytes + rows * arena.capacity * self.token_bytes
        if self.ledger.resize(arena.reservation, wanted):
            return True
        self._drop_empty(arena)
        return self.ledger.resize(arena.reservation, wanted)

    def _drop_empty(self, keep: Arena) -> None:
        for arena in self.arenas.values():
            if arena is not keep and not arena.used:
                self._drop(arena)

    def _drop(self, arena: Arena) -> None:
        arena.drop()
        self.ledger.resize(arena.reservation, 0)

    def check_integrity(self) -> None:
        """Raise `EngineFailed` if rows, tensors and the ledger do not agree."""
        for arena in self.arenas.values():
            dense = all(row.index == i and row.arena is arena for i, row in enumerate(arena.rows))
            if not dense or arena.used > arena.allocated:
                raise EngineFailed("rows are not where they should be", code="engine.integrity")
            booked = self.ledger.size(arena.reservation)
            if booked != arena.nbytes:
                raise EngineFailed(
                    f"rows of {arena.capacity} tokens take {arena.nbytes} bytes, the ledger says "
                    f"{booked}",
                    code="engine.integrity",
                )


def capacity_for(tokens: int) -> int:
    """The class of rows that holds `tokens` tokens: a power of two."""
    return max(SMALLEST, 1 << (tokens - 1).bit_length())
