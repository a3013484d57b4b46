"""From options to measured answers: sets, who answers, the answer store, and a line of progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.cli.evaluation.options import Measuring
from foreword.cli.evaluation.sides import BARE, Places, endpoint
from foreword.cli.output import errors

if TYPE_CHECKING:
    from foreword.evaluation.gates.judging import Contestant, Extra, Field
    from foreword.evaluation.golden import GoldenSet
    from foreword.evaluation.metrics.calibration import Calibration
    from foreword.evaluation.metrics.metric import Metric
    from foreword.evaluation.runs.decoding import Decoding
    from foreword.evaluation.runs.store import AnswerStore
    from foreword.evaluation.scorecards.evaluation import Evaluation
    from foreword.evaluation.scorecards.scorecard import Scorecard
    from foreword.prefix.base_model import BaseModel

_STEPS = 10
"""Lines of progress where there is no terminal."""


@dataclass(frozen=True)
class Run:
    """Sets that were answered and measured, and the scorecard of each."""

    evaluations: tuple[Evaluation, ...]
    scorecards: tuple[Scorecard, ...]


def read_sets(files: Sequence[Path]) -> list[GoldenSet]:
    """The golden sets, before anything heavy is loaded."""
    from foreword.evaluation.golden import read_golden

    return [read_golden(file) for file in files]


def run(
    contestants: Sequence[Contestant],
    sets: Sequence[GoldenSet],
    base: str | None,
    decoding: Decoding,
    measuring: Measuring,
    places: Places,
    answers: Path | None,
) -> Run:
    """Let everybody answer everything that is not in the store yet, and measure.

    Raises:
        ForewordError: whatever stands in the way; what was answered before is kept.
    """
    from foreword.evaluation.gates.judging import field_of, judge_sets
    from foreword.evaluation.scorecards.scorecard import build

    metrics = _metrics(measuring)
    loaded = load(base) if base else None
    who = field_of(contestants, loaded, sets[0])
    with opened_store(answers) as store, progress_line() as tell:
        found = judge_sets(
            sets, who, decoding, metrics=metrics, allowed=measuring.allowed, store=store,
            progress=tell, extra=_extra(who, measuring, places),
        )  # fmt: skip
    now = datetime.now(UTC)
    cards = [
        build(each, now, calibrations=_calibrations(golden, metrics, measuring))
        for golden, each in zip(sets, found, strict=True)
    ]
    return Run(tuple(found), tuple(cards))


def load(base: str) -> BaseModel:
    from foreword.cli.output import quiet_libraries
    from foreword.prefix.base_model import load_base

    quiet_libraries()
    return load_base(base)


@contextmanager
def opened_store(directory: Path | None) -> Iterator[AnswerStore]:
    from foreword.config import foreword_home
    from foreword.evaluation.runs.store import AnswerStore

    with AnswerStore(directory or foreword_home() / "answers") as store:
        yield store


@contextmanager
def progress_line() -> Iterator[Callable[[int, int], None]]:
    """Told how many answers there are: a bar in a terminal, some lines elsewhere."""
    if not errors.is_terminal:
        yield _lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    columns = (TextColumn("judging"), BarColumn(bar_width=24), MofNCompleteColumn(), Left())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines() -> Callable[[int, int], None]:
    said = -1

    def tell(done: int, total: int) -> None:
        nonlocal said
        step = _STEPS * done // total if total else _STEPS
        if step > said:
            said = step
            errors.print(f"{done} of {total} answers")

    return tell


def _metrics(measuring: Measuring) -> tuple[Metric, ...]:
    from foreword.evaluation.gates.extras import NAMES
    from foreword.evaluation.metrics.suite import suite

    names = measuring.metrics
    own = None if names is None else [name for name in names if name not in NAMES]
    if measuring.encoder is None:
        return suite(own)
    from foreword.evaluation.metrics.encoder import SentenceEncoder

    return suite(own, embed=SentenceEncoder(measuring.encoder))


def _extra(who: Field, measuring: Measuring, places: Places) -> Extra:
    from foreword.evaluation.gates import extras
    from foreword.evaluation.gates.judging import required
    from foreword.evaluation.metrics.neutral import neutral_texts, read_texts

    found = []
    if measuring.neutral is not None:
        builtin = measuring.neutral == "builtin"
        texts = neutral_texts() if builtin else read_texts(Path(measuring.neutral))
        found.append(extras.perplexities(who, texts))
    if measuring.judge == BARE:
        found.append(extras.judged_by_base(required(who.base)))
    elif measuring.judge is not None:
        found.append(extras.judged_by_endpoint(endpoint(measuring.judge, places)))
    return extras.all_of(found)


def _calibrations(
    golden: GoldenSet, metrics: Sequence[Metric], measuring: Measuring
) -> Sequence[Calibration]:
    if measuring.labels is None:
        return ()
    from foreword.evaluation.checks import load_functions
    from foreword.evaluation.metrics.labelled import calibrations, read_labelled

    functions = load_functions(golden.functions(), measuring.allowed)
    return calibrations(read_labelled(measuring.labels, golden, functions), metrics)
