"""`foreword evaluate` and `foreword compare`: scorecards, without a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.evaluation.options import (
    Allowed,
    Answers,
    Base,
    Encoder,
    Format,
    Golden,
    Judge,
    KeyFile,
    Labels,
    MaxNewTokens,
    Measuring,
    Metrics,
    Neutral,
    Out,
    Seed,
    Shown,
    Side,
    Temperature,
)
from foreword.cli.registry.options import Directory, Trust
from foreword.errors import UsageError

if TYPE_CHECKING:
    from foreword.cli.evaluation.sides import Places
    from foreword.evaluation.runs.decoding import Decoding


def evaluate(
    golden: Golden,
    sides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SIDE]...",
            help="Artifact directory, reference such as tenant/prefix@1.2.3, or URL#MODEL.",
        ),
    ] = None,
    base: Base = None,
    bare: Annotated[
        bool,
        typer.Option("--bare/--no-bare", help="Whether the base without a prefix answers too."),
    ] = True,
    all_released: Annotated[
        bool, typer.Option("--all-released", help="Judge everything again that a registry serves.")
    ] = False,
    prefix: Annotated[
        str, typer.Option(help="With --all-released: only names that begin with this.")
    ] = "",
    policy: Annotated[
        Path | None, typer.Option(help="With --all-released: YAML file of the gate.")
    ] = None,
    sign: Annotated[
        str | None,
        typer.Option(help="With --all-released: attest the verdicts with this key of yours."),
    ] = None,
    answers: Answers = None,
    out_: Out = None,
    format_: Shown = "md",
    max_new_tokens: MaxNewTokens = 128,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    metrics: Metrics = None,
    allowed: Allowed = None,
    judge: Judge = None,
    neutral: Neutral = None,
    encoder: Encoder = None,
    labels: Labels = None,
    key_file: KeyFile = None,
    registry: Directory = None,
    trust: Trust = None,
) -> None:
    """Let prefixes answer golden sets, and show what came of it. Stopped, it goes on where it was."""
    from foreword.cli.evaluation.sides import Places
    from foreword.evaluation.runs.decoding import Decoding

    decoding = Decoding(max_new_tokens, temperature, seed)
    places = Places(registry, trust, key_file)
    if all_released:
        if sides or base is None or policy is None:
            raise UsageError(
                "--all-released takes --base and --policy, and no sides",
                code="evaluation.all_released",
            )
        from foreword.cli.evaluation.retesting import Wanted, retest

        wanted = Wanted(base, prefix, policy, sign, tuple(allowed or ()))
        retest(wanted, golden, decoding, places, answers, format_, out_)
        return
    if not sides and not (base and bare):
        raise UsageError("name what to judge: a side, or --base", code="evaluation.side")
    measuring = Measuring.given(metrics, allowed, judge, neutral, encoder, labels)
    chosen = ["base", *(sides or [])] if base and bare else list(sides or [])
    _scorecards(chosen, golden, base, decoding, measuring, places, answers, format_, out_)


def compare(
    first: Side,
    second: Side,
    golden: Golden,
    base: Base = None,
    answers: Answers = None,
    out_: Out = None,
    format_: Shown = "md",
    max_new_tokens: MaxNewTokens = 128,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    metrics: Metrics = None,
    allowed: Allowed = None,
    judge: Judge = None,
    neutral: Neutral = None,
    encoder: Encoder = None,
    labels: Labels = None,
    key_file: KeyFile = None,
    registry: Directory = None,
    trust: Trust = None,
) -> None:
    """Compare two sides on the same rows: differences are the second minus the first."""
    from foreword.cli.evaluation.sides import Places
    from foreword.evaluation.runs.decoding import Decoding

    measuring = Measuring.given(metrics, allowed, judge, neutral, encoder, labels)
    _scorecards(
        [first, second], golden, base, Decoding(max_new_tokens, temperature, seed), measuring,
        Places(registry, trust, key_file), answers, format_, out_,
    )  # fmt: skip


def _scorecards(
    sides: list[str],
    golden: list[Path],
    base: str | None,
    decoding: Decoding,
    measuring: Measuring,
    places: Places,
    answers: Path | None,
    shown: Format,
    out: Path | None,
) -> None:
    from foreword.cli.evaluation.delivering import deliver
    from foreword.cli.evaluation.running import read_sets, run
    from foreword.cli.evaluation.sides import contestant, names_of

    sets = read_sets(golden)
    named = zip(names_of(sides), sides, strict=True)
    who = [contestant(name, side, places) for name, side in named]
    done = run(who, sets, base, decoding, measuring, places, answers)
    deliver(done.scorecards, shown, out)
