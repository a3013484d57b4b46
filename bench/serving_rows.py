"""What it costs that a step may have any number of rows: kernels for each number, or for few of them.

SmolLM2-135M in float32. Each side is a process of its own, since the kernels belong to the process. It runs
one step of every number of rows, in random order, and then all of them once more; a few steps at a time, in
turns with the other side, for a machine is now faster, now slower. The first side gives matrix products
even numbers of rows (`serving/engine/model/evened.py`), the other as many as there are.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import harness
from serving_sides import Side, serve

from foreword.cli.output import quiet_libraries
from foreword.prefix.base_model import load_base
from foreword.prefix.bases import demo_base
from foreword.serving.engine.model.attention import Piece, as_many
from foreword.serving.engine.model.rows import RowPool
from foreword.serving.engine.model.runner import ModelRunner
from foreword.serving.engine.waiting.ledger import Ledger

EVENED, EVERY = "even numbers", "every number"
MOST, QUICK_MOST = 320, 96
"""Rows: 64 answers and 256 tokens of prompts, as many as a step has by default."""
FEW = 16
"""Steps of one side before the other has its turn."""


class Steps:
    """One side: a model of its own, and a row for the tokens of its steps."""

    def __init__(self, fit: str) -> None:
        quiet_libraries()
        base = load_base(demo_base(lambda line: None))
        self._runner = ModelRunner(base)
        if fit == EVERY:
            self._runner._fit = as_many
        pool = RowPool(self._runner.layers, base.dtype, base.device, Ledger(1 << 32), 1)
        [self._row] = pool.reserve(MOST, 1) or []

    def steps(self, numbers: Sequence[int]) -> list[float]:
        """Seconds of a step of each number of rows."""
        seconds = list[float]()
        for rows in numbers:
            piece = Piece(self._row, [1000 + i for i in range(rows)], 0, None, False)
            began = time.perf_counter()
            self._runner.run([piece])
            seconds.append(time.perf_counter() - began)
        return seconds


@dataclass(frozen=True)
class Pass:
    """A step of each number of rows."""

    seconds: list[float]
    mb: float
    """Megabytes by which the process has grown."""


@dataclass(frozen=True)
class Round:
    """What one side took."""

    first: Pass
    again: Pass


def measure(quick: bool) -> harness.Result:
    numbers = list(range(1, (QUICK_MOST if quick else MOST) + 1))
    random.Random(0).shuffle(numbers)
    with tempfile.TemporaryDirectory(prefix="foreword-bench-") as scratch:
        rounds = _round(numbers, Path(scratch))
    raw = {name: asdict(side) for name, side in rounds.items()}
    return harness.Result(_claims(rounds, len(numbers)), {"numbers": numbers, "sides": raw})


def _round(numbers: Sequence[int], scratch: Path) -> dict[str, Round]:
    sides = {name: _side(name, scratch) for name in (EVENED, EVERY)}

    def turns(rows: Sequence[int]) -> dict[str, Pass]:
        done: dict[str, list[Pass]] = {name: [] for name in sides}
        for number, start in enumerate(range(0, len(rows), FEW)):
            order = [EVENED, EVERY] if number % 2 else [EVERY, EVENED]
            for name in order:
                done[name].append(_pass(sides[name], rows[start : start + FEW]))
        return {name: _together(parts) for name, parts in done.items()}

    try:
        turns([max(numbers)])  # what every step needs is there before anything is counted
        first, again = turns(numbers), turns(numbers)
    finally:
        for side in sides.values():
            side.close()
    return {name: Round(first[name], again[name]) for name in sides}


def _pass(side: Side, numbers: Sequence[int]) -> Pass:
    before = side.resident_mb()
    seconds = side.do("steps", numbers=numbers)
    return Pass(seconds, (side.resident_mb() - before) * 2**20 / 1e6)


def _together(parts: Sequence[Pass]) -> Pass:
    return Pass(
        [second for part in parts for second in part.seconds], sum(part.mb for part in parts)
    )


def _side(name: str, scratch: Path) -> Side:
    command = [sys.executable, str(Path(__file__)), "--side", name]
    return Side(name, command, 2, scratch / f"{name.replace(' ', '-')}.log")


def _claims(rounds: dict[str, Round], count: int) -> list[harness.Claim]:
    ours, every = rounds[EVENED], rounds[EVERY]
    grown, theirs = (each.first.mb + each.again.mb for each in (ours, every))
    first = sum(ours.first.seconds) / sum(every.first.seconds)
    again = sum(ours.again.seconds) / sum(every.again.seconds)
    name = f"memory that steps of {count} numbers of rows leave behind"
    return [
        harness.Claim(name, grown, theirs, "lower", "MB"),
        harness.Claim("time of the first step of each number, against a kernel for every number",
                      first, 1.0, "lower", "x"),
        harness.Claim("time of the second", again, 1.1, "lower", "x"),
    ]  # fmt: skip


if __name__ == "__main__":
    if "--side" in sys.argv:
        made = sys.argv[sys.argv.index("--side") + 1]
        serve(lambda: {"steps": Steps(made).steps})
    else:
        harness.main(measure)
