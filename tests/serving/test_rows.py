"""Rows stay dense, keep their numbers, and every byte of them is booked before it is there."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from foreword.artifact import LayerGeometry, Site
from foreword.errors import EngineFailed
from foreword.prefix.kv import LayerKV, PrefixKV
from foreword.serving.engine.model.rows import SMALLEST, Row, RowPool, capacity_for
from foreword.serving.engine.waiting.ledger import Ledger

LAYERS = {0: LayerGeometry(2, 4, 4), 1: LayerGeometry(1, 6, 2)}
TOKEN = 4 * (2 * (4 + 4) + 1 * (6 + 2))
"""Bytes of a token in float32."""
ROW = SMALLEST * TOKEN


def pool_of(budget: int, most_rows: int = 8) -> RowPool:
    return RowPool(LAYERS, torch.float32, torch.device("cpu"), Ledger(budget), most_rows)


def taken(pool: RowPool, tokens: int, rows: int = 1) -> list[Row]:
    found = pool.reserve(tokens, rows)
    assert found is not None
    pool.check_integrity()
    return found


def fill(row: Row, number: float) -> None:
    for key, value in row.layers():
        key.fill_(number)
        value.fill_(-number)


def holds(row: Row, number: float) -> bool:
    return all(
        bool((key == number).all() and (value == -number).all()) for key, value in row.layers()
    )


@cache
def a_prefix(length: int) -> PrefixKV:
    return PrefixKV(
        length,
        {
            Site.DECODER: {
                i: LayerKV(torch.rand(g.kv_heads, length, g.key_dim),
                           torch.rand(g.kv_heads, length, g.value_dim))
                for i, g in LAYERS.items()
            }
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "capacity"), [(1, 64), (64, 64), (65, 128), (128, 128), (129, 256), (5000, 8192)]
)
def test_a_row_has_room_for_its_tokens(tokens: int, capacity: int) -> None:
    assert capacity_for(tokens) == capacity
    [row] = taken(pool_of(1 << 30), tokens)
    assert {key.shape[1] for key, _ in row.layers()} == {capacity}


def test_the_bytes_booked_are_those_of_the_tensors() -> None:
    pool = pool_of(1 << 30)
    assert pool.token_bytes == TOKEN
    taken(pool, 10, 3)
    taken(pool, 100)
    tensors = [t for arena in pool.arenas.values() for t in (*arena.keys, *arena.values)]
    assert pool.ledger.used == sum(t.untyped_storage().nbytes() for t in tensors)
    assert pool.ledger.used == (3 + 2) * ROW


def test_a_row_that_moves_into_a_gap_keeps_its_numbers() -> None:
    pool = pool_of(1 << 30)
    rows = taken(pool, 10, 5)
    for number, row in enumerate(rows):
        fill(row, number)
    for leaving in (1, 0):
        pool.release(rows.pop(leaving))
        pool.check_integrity()
    assert sorted(row.index for row in rows) == [0, 1, 2]
    assert [holds(row, number) for row, number in zip(rows, (2, 3, 4), strict=True)] == [True] * 3


def test_a_wipe_finds_what_a_row_left_where_it_was_and_touches_nothing_in_use() -> None:
    pool = pool_of(1 << 30)
    rows = taken(pool, 10, 4)
    for row in rows:
        fill(row, float("nan"))
    fill(rows[1], 5)
    pool.release(rows[0])  # the last row moves to its place
    pool.release(rows[2])
    arena = rows[1].arena
    arena.wipe_free()
    arena.wipe_free()
    assert holds(rows[1], 5)
    assert rows[3].index >= 0
    free = [tensor[arena.used :] for tensor in (*arena.keys, *arena.values)]
    assert arena.used == 2
    assert not any(bool(tensor.any()) for tensor in free)


def test_growing_moves_no_numbers() -> None:
    pool = pool_of(1 << 30)
    rows = taken(pool, 10)
    fill(rows[0], 7)
    for _ in range(7):
        rows += taken(pool, 10)
    assert holds(rows[0], 7)
    assert [row.index for row in rows] == list(range(8))


def test_a_row_given_back_twice_is_a_fault() -> None:
    pool = pool_of(1 << 30)
    first, second = taken(pool, 10, 2)
    pool.release(first)
    with pytest.raises(EngineFailed, match="twice"):
        pool.release(first)
    pool.release(second)
    with pytest.raises(EngineFailed, match="twice"):
        pool.release(second)


def test_no_room_is_an_answer_and_changes_nothing() -> None:
    pool = pool_of(4 * ROW)
    rows = taken(pool, 10, 2)
    fill(rows[0], 3)
    before = pool.ledger.used
    assert pool.reserve(10, 1) is None, "old and new tensors do not fit together"
    assert pool.reserve(1000, 1) is None
    pool.check_integrity()
    assert pool.ledger.used == before
    assert holds(rows[0], 3)


def test_an_arena_nobody_uses_makes_room_for_another() -> None:
    pool = pool_of(4 * ROW)
    for row in taken(pool, 10, 4):
        pool.release(row)
    assert pool.ledger.used == 4 * ROW
    taken(pool, 4 * SMALLEST)
    assert pool.ledger.used == 4 * ROW


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_what_fits_an_empty_pool_is_had_from_an_empty_pool(rows: int) -> None:
    pool = pool_of(rows * ROW)
    assert pool.ever_fits(SMALLEST, rows)
    assert not pool.ever_fits(SMALLEST, rows + 1)
    assert not pool.ever_fits(SMALLEST * rows * 2, 1)
    for row in taken(pool, 10):
        pool.release(row)
    assert len(taken(pool, SMALLEST, rows)) == rows


def test_a_prefix_and_a_snapshot_come_out_as_they_went_in() -> None:
    pool = pool_of(1 << 30)
    first, second = taken(pool, 20, 2)
    prefix = a_prefix(5)
    first.write_prefix(prefix)
    for (key, value), kv in zip(first.layers(), prefix.layers[Site.DECODER].values(), strict=True):
        assert torch.equal(key[:, :5], kv.key)
        assert torch.equal(value[:, :5], kv.value)
    saved = first.snapshot(1, 4)
    fill(first, 9)
    second.restore(10, saved, 3)
    for (key, _), kv in zip(second.layers(), prefix.layers[Site.DECODER].values(), strict=True):
        assert torch.equal(key[:, 10:13], kv.key[:, 1:4]), "a snapshot is a copy"
        assert not key[:, 13:].any()
    first.copy_from(second, 11)
    for (key, _), (source, _) in zip(first.layers(), second.layers(), strict=True):
        assert torch.equal(key[:, :11], source[:, :11])
        assert (key[:, 11:] == 9).all()


def test_a_layer_that_a_prefix_lacks_keeps_what_is_there() -> None:
    [row] = taken(pool_of(1 << 30), 20)
    whole = a_prefix(5)
    row.write_prefix(PrefixKV(5, {Site.DECODER: {1: whole.layers[Site.DECODER][1]}}))
    first, second = row.layers()
    assert not first[0].any()
    assert second[0][:, :5].any()


@pytest.mark.parametrize("fault", ["index", "booked"])
def test_the_check_finds_what_does_not_hold(fault: str) -> None:
    pool = pool_of(1 << 30)
    rows = taken(pool, 10, 2)
    if fault == "index":
        rows[0].index = 1
    else:
        pool.ledger.resize(rows[0].arena.reservation, 1)
    with pytest.raises(EngineFailed) as caught:
        pool.check_integrity()
    assert caught.value.code == "engine.integrity"


class Pool(RuleBasedStateMachine):
    """Rows come and go in any order; each keeps the number that was written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = pool_of(12 * ROW, most_rows=4)
        self.rows: dict[int, Row] = {}
        self.number = 0

    @rule(tokens=st.sampled_from([1, SMALLEST, 2 * SMALLEST, 4 * SMALLEST]), rows=st.integers(1, 3))
    def reserve(self, tokens: int, rows: int) -> None:
        found = self.pool.reserve(tokens, rows)
        if not self.rows:
            assert (found is not None) == self.pool.ever_fits(tokens, rows)
        for row in found or []:
            self.number += 1
            self.rows[self.number] = row
            fill(row, self.number)

    @precondition(lambda self: self.rows)
    @rule(seed=st.integers(0, 99))
    def release(self, seed: int) -> None:
        self.pool.release(self.rows.pop(random.Random(seed).choice(list(self.rows))))

    @invariant()
    def everything_holds(self) -> None:
        self.pool.check_integrity()
        self.pool.ledger.check_integrity()
        assert all(holds(row, number) for number, row in self.rows.items())


Pool.TestCase.settings = settings(max_examples=25, stateful_step_count=25)
TestPool = Pool.TestCase
