"""How many rows products are given, and that nobody sees the rows that were added."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foreword.serving.engine.model.attention import Piece
from foreword.serving.engine.model.evened import all_evened, evened
from foreword.serving.engine.model.packed import PackedLinear
from foreword.serving.engine.model.rows import RowPool
from foreword.serving.engine.model.runner import ModelRunner
from foreword.serving.engine.waiting.ledger import Ledger
from tests.tiny import tiny_base


@given(st.integers(1, 5_000))
def test_a_few_rows_more_and_never_one_less(rows: int) -> None:
    found = evened(rows)
    assert rows <= found < rows + max(4, rows / 8 + 1)
    assert evened(found) == found
    assert evened(rows + 1) >= found


def test_there_are_few_of_them() -> None:
    every = sorted({evened(rows) for rows in range(1, 641)})
    assert list(all_evened(640)) == every
    assert every[:7] == [1, 2, 4, 8, 12, 16, 20]
    assert len(every) == 44


@pytest.mark.parametrize("most", [1, 2, 3, 64, 65])
def test_all_of_them_reach_as_far_as_asked(most: int) -> None:
    assert list(all_evened(most))[-1] == evened(most)


class Watched:
    """Counts rows on their way into packed products."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen = set[int]()
        call = PackedLinear.__call__

        def watched(linear: PackedLinear, x: torch.Tensor) -> torch.Tensor:
            self.seen.add(x.numel() // x.shape[-1])
            return call(linear, x)

        patch.setattr(PackedLinear, "__call__", watched)


@pytest.mark.parametrize("lean", [True, False])
def test_products_are_given_even_numbers_of_rows_only(
    lean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_base("llama")
    runner = ModelRunner(base, lean=lean)
    watched = Watched(monkeypatch)
    pool = RowPool(runner.layers, base.dtype, base.device, Ledger(64 << 20), 16)
    rows = pool.reserve(64, 9) or []
    prompts = [Piece(row, list(range(1, 2 + i)), 0, None, False) for i, row in enumerate(rows)]
    assert runner.run(prompts).shape[0] == 9  # 45 tokens of nine texts
    assert runner.run([Piece(rows[0], [5], 1, None, False)]).shape[0] == 1
    assert watched.seen == {48, 12, 1}


def test_a_warm_up_meets_every_number_and_every_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = ModelRunner(tiny_base("llama"))
    calls: list[tuple[tuple[int, ...], int]] = []
    monkeypatch.setattr(
        PackedLinear, "__call__", lambda linear, x: calls.append((linear.shape, x.shape[0]))
    )
    runner.warm_up(30, 60.0)
    shapes = {linear.shape for linear in runner._linears}
    assert len(shapes) > 2
    assert sorted(calls) == sorted((shape, rows) for shape in shapes for rows in all_evened(30))


def test_a_warm_up_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = ModelRunner(tiny_base("llama"))
    watched = Watched(monkeypatch)
    runner.warm_up(10_000, 0.0)
    assert not watched.seen


def test_unpacked_products_are_given_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_base("llama")
    runner = ModelRunner(base, pack=False)
    watched = Watched(monkeypatch)
    pool = RowPool(runner.layers, base.dtype, base.device, Ledger(64 << 20), 16)
    [row] = pool.reserve(64, 1) or []
    runner.run([Piece(row, [1, 2, 3, 4, 5], 0, None, False)])
    assert watched.seen == {5, 1}
