"""Experiments and drift alarms: how often they are wrong under peeking, and what they find."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import harness
import numpy as np
import numpy.typing as npt

from foreword.artifact import Digest
from foreword.evaluation.drift import (
    NGRAMS,
    Budget,
    DriftReport,
    Encoder,
    Observation,
    Reference,
    hidden_states,
    look,
    observation,
)
from foreword.evaluation.drift.window import make_window
from foreword.evaluation.experiments.arms import Arm, Shares, Values
from foreword.evaluation.experiments.assignment import Ratio, sample_ratio
from foreword.evaluation.experiments.sequential import FEWEST, compare
from foreword.evaluation.statistics.distributions import normal_quantile
from foreword.evaluation.statistics.error_rates import Rate, rate
from foreword.prefix.base_model import load_base
from foreword.prefix.bases import demo_base

Numbers = npt.NDArray[np.float64]
ALPHA = 0.05


def figures(found: Rate) -> dict[str, float]:
    return {"share": found.share, "low": found.low, "high": found.high, "of": found.of}


_MOST, _STEP = 5_000, 20
"""Units per arm at the end, and between two looks."""


def _shares(p: float) -> Callable[[np.random.Generator], Numbers]:
    return lambda draw: (draw.random(_MOST) < p).astype(np.float64)


_ARMS: dict[str, Callable[[np.random.Generator], Numbers]] = {
    "share of 2 %": _shares(0.02),
    "share of 20 %": _shares(0.2),
    "latency, lognormal": lambda draw: draw.lognormal(0, 1, _MOST),
}


def peeking(runs: int) -> list[dict[str, Any]]:
    return [_stopped(what, draw, runs) for what, draw in _ARMS.items()]


def _stopped(what: str, arm: Callable[[np.random.Generator], Numbers], runs: int) -> dict[str, Any]:
    """False positives if one stops at the first look that says so; every 20 units from 100 on."""
    ours = naive = late = 0
    for run in range(runs):
        draw = np.random.default_rng([6, run])
        said = list(_looks(arm(draw), arm(draw), share=what.startswith("share")))
        ours += any(mine for mine, _ in said)
        naive += any(theirs for _, theirs in said)
        late += said[-1][1]
    return {
        "metric": what,
        "looks": 1 + (_MOST - FEWEST) // _STEP,
        "ours": figures(rate(ours, runs)),
        "repeated_z_test": figures(rate(naive, runs)),
        "z_test_once_at_the_end": figures(rate(late, runs)),
    }


def _looks(a: Numbers, b: Numbers, *, share: bool) -> Iterator[tuple[bool, bool]]:
    z = normal_quantile(1 - ALPHA / 2)
    sums = [(np.cumsum(each), np.cumsum(each**2)) for each in (a, b)]
    for n in range(FEWEST, _MOST + 1, _STEP):
        arms: list[Arm] = [
            Shares(n, int(s[n - 1])) if share else Values(n, float(s[n - 1]), float(q[n - 1]))
            for s, q in sums
        ]
        error = math.sqrt(sum(arm.variance / arm.n for arm in arms))
        naive = error > 0 and abs(arms[1].mean - arms[0].mean) > z * error
        yield compare(arms[0], arms[1], alpha=ALPHA).is_different, naive


def ratios(runs: int) -> dict[str, Any]:
    """A canary with 5 % of the keys, looked at every 20 keys."""
    ours = naive = found = 0
    shares = {"stable": 0.95, "canary": 0.05}
    for run in range(runs):
        draw = np.random.default_rng([7, run])
        drawn = draw.random(_MOST) < 0.05
        looks = [_ratio(drawn, n, shares) for n in range(100, _MOST + 1, _STEP)]
        ours += any(each.p_always <= 0.05 for each in looks)
        naive += any(each.p <= 0.05 for each in looks)
        found += _ratio(draw.random(_MOST) < 0.07, _MOST, shares).is_mismatch
    return {
        "ours": figures(rate(ours, runs)),
        "repeated_chi_square": figures(rate(naive, runs)),
        "share_of_7_percent_found_at_0.001": figures(rate(found, runs)),
    }


def _ratio(canary: npt.NDArray[np.bool_], n: int, shares: Mapping[str, float]) -> Ratio:
    count = int(canary[:n].sum())
    return sample_ratio({"stable": n - count, "canary": count}, shares)


# Drift.

_WINDOW = 300
_POOL = 600
"""Usual questions, of which each look draws its two windows, and half as many new ones."""


def drift(looks: int) -> dict[str, Any]:
    """Customers' questions to a bank (BANKING77), then with questions of eight kinds pushed in."""
    rows = harness.read_rows("banking77/train.jsonl")
    kinds = sorted({row["target"] for row in rows})
    other = sorted({row["input"] for row in rows if row["target"] in kinds[:8]})
    usual = sorted({row["input"] for row in rows} - set(other))
    draw = np.random.default_rng(9)
    usual = draw.permutation(usual)[:_POOL].tolist()
    other = draw.permutation(other)[: _POOL // 2].tolist()
    encoders = {
        "hashed 4-grams": NGRAMS,
        "hidden states of SmolLM2-135M": hidden_states(load_base(demo_base(print))),
    }
    return {name: _found(usual, other, each, looks) for name, each in encoders.items()}


def _found(
    usual: Sequence[str], other: Sequence[str], encoder: Encoder, looks: int
) -> dict[str, Any]:
    texts = [*usual, *other]
    vectors = dict(zip(texts, encoder.embed(texts), strict=True))
    known = Encoder(encoder.name, lambda asked: np.stack([vectors[text] for text in asked]))
    found: dict[str, Any] = {"rows": _WINDOW, "level": ALPHA}
    for share in (0.0, 0.1, 0.25, 0.5):
        runs = looks // 5 if share else looks
        alarms = 0
        for run in range(runs):
            draw = np.random.default_rng([8, run])
            alarms += _look(draw, usual, other, share, known).alarm
        found[f"found_with_{share:.0%}_new" if share else "false_alarms"] = figures(
            rate(alarms, runs)
        )
    return found


def _look(
    draw: np.random.Generator,
    usual: Sequence[str],
    other: Sequence[str],
    share: float,
    encoder: Encoder,
) -> DriftReport:
    digest, now = Digest.of(b"prefix"), datetime(2026, 1, 31, tzinfo=UTC)
    places = draw.choice(len(usual), 2 * _WINDOW, replace=False)
    before = [usual[place] for place in places[:_WINDOW]]
    after = [usual[place] for place in places[_WINDOW:]]
    after[: int(share * _WINDOW)] = draw.choice(other, int(share * _WINDOW), replace=False).tolist()
    frozen = make_window(digest, _observed(before, draw), encoder, now)
    budget = Budget(per_day=ALPHA)
    rows = _observed(after, draw)
    return look(Reference.of(frozen.to_bytes()), rows, encoder, now, budget=budget, least_psi=0.0)


def _observed(texts: Sequence[str], draw: np.random.Generator) -> list[Observation]:
    seconds = draw.gamma(3, 0.2, len(texts))
    return [
        observation({"input": text, "seconds": float(s)})
        for text, s in zip(texts, seconds, strict=True)
    ]
