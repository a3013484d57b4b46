"""Evaluations of made-up answers, for what a gate decides on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from foreword.artifact import Digest
from foreword.evaluation.checks import parse_check
from foreword.evaluation.gates.policy import GatePolicy
from foreword.evaluation.golden import GoldenRow, GoldenSet, Header
from foreword.evaluation.metrics.suite import suite
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.replay import Replay
from foreword.evaluation.runs.variant import Variant
from foreword.evaluation.scorecards.evaluation import Evaluation, evaluate

HEADER = Header("acme/support", "1.0.0", "support")
YES = parse_check({"kind": "exact"})
CANDIDATE = Digest.of(b"candidate")
_DIGESTS = {"base": None, "incumbent": Digest.of(b"incumbent"), "candidate": CANDIDATE}


def rows(
    count: int, cohorts: Sequence[str] = ("a",), tags: tuple[str, ...] = (), start: int = 0
) -> list[GoldenRow]:
    return [
        GoldenRow(
            f"r{start + i}", cohorts[i % len(cohorts)], "support", "en", {"input": f"q{start + i}"},
            references=("yes",), tags=tags, checks=(YES,),
        )
        for i in range(count)
    ]  # fmt: skip


def arms(
    shares: Mapping[str, float | Mapping[str, float]],
    of: Sequence[GoldenRow],
    seed: int = 0,
    header: Header = HEADER,
    metrics: Sequence[str] = ("task_completion", "exact_match"),
) -> Evaluation:
    """Each variant answers right with its probability, which may be one for each cohort or tag."""
    draw = np.random.default_rng(seed)

    def said(share: float | Mapping[str, float], row: GoldenRow) -> Answer:
        if not isinstance(share, float):
            share = next(share[key] for key in (*row.tags, row.cohort, "") if key in share)
        return Answer("yes" if draw.random() < share else f"no, {row.id}", None)

    answers = {name: {row.id: said(share, row) for row in of} for name, share in shares.items()}
    variants = tuple(Variant(name, _DIGESTS[name], "engine", "fingerprint") for name in shares)
    golden = GoldenSet(header, tuple(of))
    replay = Replay(golden, variants, Decoding(), "an engine", answers, 0, 0.0)
    return evaluate(replay, suite(metrics))


def policy(**settings: object) -> GatePolicy:
    return GatePolicy.model_validate({"simulations": 0, **settings})
