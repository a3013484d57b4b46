"""`foreword drift`: is a version still asked, and does it still answer, as it was when it was released?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from foreword.cli.evaluation.options import Base
from foreword.cli.output import errors, out, print_json, visible
from foreword.cli.registry.lines import line, table
from foreword.cli.registry.options import Actor, Directory, Json, Reason

if TYPE_CHECKING:
    from foreword.artifact import Digest
    from foreword.evaluation.drift import DriftReport, Encoder, Observation
    from foreword.evaluation.golden import Problem

DRIFTED, INSUFFICIENT = 10, 11
"""Exit codes, as of a gate that fails and of one without enough evidence."""

app = typer.Typer(
    help="Drift: what a version is asked and answers now, against what it was at its release.",
    no_args_is_help=True,
)
Side = Annotated[
    str, typer.Argument(metavar="REF", help="Reference to a registry, or an artifact directory.")
]
Log = Annotated[
    Path, typer.Option(help="JSONL of requests and answers, one line per conversation.")
]
Windows = Annotated[
    Path | None,
    typer.Option(help="Directory of reference windows, by default FOREWORD_HOME/drift."),
]
How = Annotated[
    Literal["ngrams", "base"],
    typer.Option("--encoder", help="What makes vectors of inputs; base takes its hidden states."),
]


@app.command()
def freeze(
    ref: Side,
    log: Log,
    windows: Windows = None,
    encoder: How = "ngrams",
    base: Base = None,
    registry: Directory = None,
) -> None:
    """Freeze the reference window of a version from the rows of its release; it never moves again."""
    from foreword.evaluation.drift import freeze_reference

    digest = _digest(ref, registry)
    rows = _rows(log, digest)
    made = freeze_reference(
        _place(windows), digest, rows, _encoder(encoder, base), datetime.now(UTC)
    )
    line("window", f"{len(made.window.vectors)} rows of {digest} frozen as {made.digest}")


@app.command()
def look(
    ref: Side,
    log: Log,
    windows: Windows = None,
    encoder: How = "ngrams",
    base: Base = None,
    per_day: Annotated[
        float, typer.Option(help="False alarms a day over all prefixes that are bearable.")
    ] = 0.1,
    prefixes: Annotated[int, typer.Option(min=1, help="Prefixes that are looked at.")] = 1,
    looks: Annotated[float, typer.Option(help="Looks a day at each.")] = 1.0,
    record: Annotated[
        bool, typer.Option("--record", help="Put an alarm and its rows into the registry.")
    ] = False,
    registry: Directory = None,
    actor: Actor = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Compare rows of now with the reference: exit code 0 quiet, 10 drifted, 11 not enough rows."""
    from foreword.evaluation import drift

    digest = _digest(ref, registry)
    reference = drift.load_reference(_place(windows), digest)
    budget = drift.Budget(per_day, prefixes, looks)
    rows, made = _rows(log, digest), _encoder(encoder, base)
    report = drift.look(reference, rows, made, datetime.now(UTC), budget=budget)
    if json:
        print_json(report.to_json())
    else:
        _tell(report)
    if record:
        _record(report, registry, actor, reason)
    raise typer.Exit({"drifted": DRIFTED, "insufficient": INSUFFICIENT}.get(report.outcome, 0))


@app.command()
def feedback(
    stable: Annotated[
        Path, typer.Option(help="JSONL of the stable arm: key, feedback, escalated.")
    ],
    canary: Annotated[Path, typer.Option(help="The same of the canary.")],
    alpha: Annotated[float, typer.Option(help="Of both questions together.")] = 0.05,
    json: Json = False,
) -> None:
    """Compare what people said of two arms; it may be asked as often as one likes."""
    from foreword.evaluation.drift import Feedback, compare_feedback

    sides = [Feedback.of(_lines(file)) for file in (stable, canary)]
    found = compare_feedback(*sides, alpha=alpha)
    worse = any(each.low > 0 for each in found.values())
    if json:
        print_json({name: _finite(vars(each)) for name, each in found.items()})
    else:
        for name, each in found.items():
            text = (
                f"canary minus stable {each.difference:+.4f}, {each.low:+.4f} to {each.high:+.4f}"
            )
            line(name, text)
    raise typer.Exit(DRIFTED if worse else 0)


def _digest(ref: str, registry: Path | None) -> Digest:
    from foreword.artifact import open_artifact
    from foreword.registry.registry import Registry

    if Path(ref).is_dir():
        return open_artifact(ref).digest
    with Registry.open(registry) as opened:
        return opened.resolve(ref).digest


def _rows(log: Path, digest: Digest) -> tuple[Observation, ...]:
    from foreword.evaluation.drift import read_observations

    found = read_observations(log, str(digest))
    _say_problems(found.problems)
    return found.observations


def _lines(log: Path) -> list[dict[str, Any]]:
    """The lines of a log that are objects; the others are told."""
    from foreword.evaluation.golden.reading import Problem, json_lines

    good, bad = [], []
    for source, value in json_lines(log):
        if isinstance(value, dict):
            good.append(value)
        else:
            bad.append(value if isinstance(value, Problem) else Problem(source, "no JSON object"))
    _say_problems(bad)
    return good


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: an end that is not known yet is null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _say_problems(problems: Sequence[Problem]) -> None:
    for each in problems[:5]:
        errors.print(visible(str(each)), markup=False, soft_wrap=True)
    if problems:
        errors.print(f"{len(problems)} lines were left out")


def _encoder(how: str, base: str | None) -> Encoder:
    from foreword.evaluation.drift import NGRAMS, hidden_states

    if how == "ngrams":
        return NGRAMS
    from foreword.cli.evaluation.running import load
    from foreword.evaluation.gates.judging import required

    return hidden_states(required(load(base) if base else None))


def _place(windows: Path | None) -> Path:
    from foreword.config import foreword_home

    return windows or foreword_home() / "drift"


def _tell(report: DriftReport) -> None:
    line(report.outcome, f"{report.reference.window.digest}, level {report.level:.3g} of this look")
    rows: list[tuple[str, ...]] = []
    for each in report.findings:
        moved = "" if each.psi is None else f"{each.psi:.3f}"
        said = "alarm" if each.alarm else ""
        rows.append((each.measure, f"{each.statistic:.4f}", f"{each.p:.3g}", moved,
                     f"{each.reference}/{each.current}", said))  # fmt: skip
    table(("measure", "statistic", "p", "psi", "rows", ""), rows)


def _record(report: DriftReport, registry: Path | None, actor: str | None, reason: str) -> None:
    from foreword.cli.registry.changing import by
    from foreword.evaluation.drift import record
    from foreword.registry.registry import Registry

    with Registry.open(registry) as opened:
        entry: Any = record(report, opened, by(actor, reason))
    out.print("nothing to record" if entry is None else f"recorded as entry {entry.seq}")
