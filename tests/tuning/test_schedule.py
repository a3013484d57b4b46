"""Steps, rates, row order and batches: the arithmetic a resumed run depends on."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import ConfigError
from foreword.tuning.recipe import PrefixSettings, Recipe, TrainSettings
from foreword.tuning.runlog import RunLog, read_log
from foreword.tuning.schedule import DEFAULT_LR, make_schedule
from foreword.tuning.tokens import TokenRow, micro_batches, row_order


def recipe(**train: object) -> Recipe:
    return Recipe(train=TrainSettings(**train))  # type: ignore[arg-type]


def test_what_a_recipe_leaves_open_is_filled_in() -> None:
    assert make_schedule(recipe(), 40).steps == 100
    assert make_schedule(recipe(), 4000).steps == 1500
    assert make_schedule(recipe(), 10**6).steps == 2000
    assert make_schedule(recipe(epochs=0.5), 80).steps == 5
    assert make_schedule(recipe(), 40).peak_lr == DEFAULT_LR["direct"]
    mlp = Recipe(prefix=PrefixSettings(encoder="mlp"))
    assert make_schedule(mlp, 40).peak_lr == DEFAULT_LR["mlp"]
    with pytest.raises(ConfigError, match="one of them"):
        make_schedule(recipe(steps=5, epochs=1), 40)


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
def test_the_rate_rises_to_its_peak_and_falls_as_asked(shape: str) -> None:
    schedule = make_schedule(recipe(steps=100, warmup=0.1, lr=2.0, schedule=shape), 40)
    rates = [schedule.lr(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert max(rates) == pytest.approx(2.0)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert (rates[-1] == 2.0) if shape == "constant" else (rates[-1] < 0.05)
    assert make_schedule(recipe(steps=3, warmup=0, lr=2.0), 40).lr(0) == 2.0


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 9))
def test_each_epoch_sees_every_row_once(count: int, batch: int, seed: int) -> None:
    steps = -(-3 * count // batch)
    order = [i for step in range(steps) for i in row_order(count, batch, seed, step)]
    assert len(order) == steps * batch
    for epoch in range(3):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert row_order(count, batch, seed, steps) == row_order(count, batch, seed, steps)


def test_epochs_and_seeds_shuffle_differently() -> None:
    orders = [row_order(50, 50, seed, step) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 64))
def test_parts_keep_the_order_and_the_limit(lengths: list[int], limit: int) -> None:
    rows = [TokenRow((i,), tuple(range(n))) for i, n in enumerate(lengths)]
    parts = list(micro_batches(rows, limit))
    assert [row for part in parts for row in part] == rows
    assert all(sum(map(len, part)) <= limit or len(part) == 1 for part in parts)


def test_a_resumed_log_has_each_step_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("run") / "training.jsonl"
    log = RunLog(path, keep_through=0)
    for step in range(1, 8):
        log.write({"step": step})
    with path.open("a") as file:
        file.write('{"step": 8, "los')
    assert [entry["step"] for entry in read_log(path)] == list(range(1, 8))
    log = RunLog(path, keep_through=5)
    log.write({"step": 6})
    assert [entry["step"] for entry in read_log(path)] == list(range(1, 7))
