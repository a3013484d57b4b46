"""`foreword gate`: a verdict on a candidate, signed if wanted; the exit code says what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.evaluation.options import (
    Allowed,
    Answers,
    Base,
    Encoder,
    Golden,
    Judge,
    KeyFile,
    Labels,
    MaxNewTokens,
    Measuring,
    Metrics,
    Neutral,
    Out,
    Policy,
    Seed,
    Shown,
    Temperature,
)
from foreword.cli.evaluation.sides import BARE, Places
from foreword.cli.evaluation.verdicts import AUTO, NONE, Job, gate_chain, gate_prefix
from foreword.cli.output import print_json
from foreword.cli.registry.options import Directory, Trust

if TYPE_CHECKING:
    from foreword.evaluation.gates.policy import GatePolicy
    from foreword.evaluation.golden import GoldenSet


def gate(
    candidate: Annotated[
        str,
        typer.Argument(
            metavar="CANDIDATE",
            help="Artifact directory, reference, URL#MODEL, or the YAML file of a chain.",
        ),
    ],
    golden: Golden,
    policy: Policy,
    base: Base = None,
    incumbent: Annotated[
        str,
        typer.Option(
            help="What it is compared with, as CANDIDATE; `auto` is what is released under its "
            "name, `none` leaves the base."
        ),
    ] = AUTO,
    bare: Annotated[
        str | None,
        typer.Option(metavar="SIDE", help="What stands for the base, by default --base itself."),
    ] = None,
    sign: Annotated[
        str | None, typer.Option(metavar="KEY", help="Attest the verdict with this key of yours.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what these rows could decide.")
    ] = False,
    discordance: Annotated[
        float,
        typer.Option(min=0.001, max=1.0, help="With --plan: rows on which two variants differ."),
    ] = 0.2,
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
    """Judge a candidate by a policy: exit code 0 pass, 10 fail, 11 not enough evidence."""
    from foreword.cli.evaluation.running import read_sets
    from foreword.evaluation.gates.policy import load_policy
    from foreword.evaluation.runs.decoding import Decoding

    rules, sets = load_policy(policy), read_sets(golden)
    _require_metrics(rules)
    if plan:
        _tell_plan(rules, sets, discordance, format_ == "json")
        return
    only = sorted({*metrics, *rules.metrics}) if metrics else None
    neutral = neutral or ("builtin" if "neutral_perplexity" in rules.metrics else None)
    asked = Measuring.given(only, allowed, judge, neutral, encoder, labels)
    job = Job(
        sets, rules, base, Decoding(max_new_tokens, temperature, seed), asked,
        Places(registry, trust, key_file), answers, sign, format_, out_,
    )  # fmt: skip
    if candidate.endswith((".yaml", ".yml")):
        raise typer.Exit(
            gate_chain(job, candidate, None if incumbent in (NONE, AUTO) else incumbent)
        )
    raise typer.Exit(gate_prefix(job, candidate, incumbent, bare or (BARE if base else None)))


def _require_metrics(policy: GatePolicy) -> None:
    """A metric nobody knows is told before anything is loaded."""
    from foreword.evaluation.gates.extras import NAMES
    from foreword.evaluation.metrics.suite import suite

    suite(sorted(policy.metrics - NAMES - {"answer_relevancy"}))


def _tell_plan(
    policy: GatePolicy, sets: Sequence[GoldenSet], discordance: float, json: bool
) -> None:
    from foreword.cli.registry.lines import table
    from foreword.evaluation.gates.plan import plan

    found = plan(policy, sets, discordance)
    if json:
        print_json({"discordance": discordance, "rules": [each.to_json() for each in found]})
        return
    titles = ("rule", "rows", "n", "power", f"rows for {policy.power:g}")
    table(
        titles,
        [(e.rule, e.rows, str(e.n), f"{e.power:.2f}", str(e.needed)) for e in found],
    )
