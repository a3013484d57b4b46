"""Writes gbstats.json: sums drawn here, and what gbstats gives for them.

Its pins do not go with ours, so it runs in an environment of its own:

    python -m venv peer && peer/bin/pip install gbstats==0.8.0
    peer/bin/python tests/evaluation/gbstats_figures.py tests/evaluation/gbstats.json
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
from gbstats.models.statistics import (
    ProportionStatistic,
    RegressionAdjustedStatistic,
    SampleMeanStatistic,
    compute_theta,
)
from gbstats.utils import check_srm

DRAW = np.random.default_rng(7)


def sums(values: np.ndarray) -> list[Any]:
    return [len(values), float(values.sum()), float((values * values).sum())]


def moments(given: list[Any]) -> SampleMeanStatistic:
    return SampleMeanStatistic(n=given[0], sum=given[1], sum_squares=given[2])


def sequential(stable: Any, canary: Any, alpha: float, tuning: float) -> dict[str, float]:
    config = SequentialConfig(
        difference_type="absolute", traffic_proportion_b=1, phase_length_days=1,
        alpha=alpha, sequential_tuning_parameter=tuning,
    )  # fmt: skip
    found = SequentialTwoSidedTTest(stable, canary, config).compute_result()
    figures = (found.expected, *found.ci, found.p_value)
    named = zip(("difference", "low", "high", "p"), map(float, figures), strict=True)
    return {"alpha": alpha, "tuning": tuning, **dict(named)}


def means(n: int, m: int, shift: float, alpha: float, tuning: float) -> dict[str, Any]:
    arms = [sums(DRAW.normal(3, 1.5, n)), sums(DRAW.normal(3 + shift, 1.2, m))]
    found = sequential(*map(moments, arms), alpha, tuning)
    return {"stable": arms[0], "canary": arms[1], **found}


def shares(n: int, x: int, m: int, y: int, alpha: float, tuning: float) -> dict[str, Any]:
    arms = [ProportionStatistic(n=n, sum=x), ProportionStatistic(n=m, sum=y)]
    return {"stable": [n, x], "canary": [m, y], **sequential(*arms, alpha, tuning)}


def with_past(size: int, rho: float, shift: float) -> dict[str, Any]:
    before = DRAW.normal(2, 1, size)
    now = rho * before + np.sqrt(1 - rho**2) * DRAW.normal(0, 1, size) + shift + 4
    return {"now": sums(now), "before": sums(before), "products": float((now * before).sum())}


def adjusted(arm: dict[str, Any], theta: float) -> RegressionAdjustedStatistic:
    return RegressionAdjustedStatistic(
        n=arm["now"][0], post_statistic=moments(arm["now"]), pre_statistic=moments(arm["before"]),
        post_pre_sum_of_products=arm["products"], theta=theta,
    )  # fmt: skip


def cuped(n: int, m: int, rho: float) -> dict[str, Any]:
    arms = [with_past(n, rho, 0.0), with_past(m, rho, 0.15)]
    theta = float(compute_theta(*(adjusted(arm, 0) for arm in arms)))
    found = [adjusted(arm, theta) for arm in arms]
    return {
        "stable": arms[0],
        "canary": arms[1],
        "theta": theta,
        "means": [float(each.mean) for each in found],
        "variances": [float(each.variance) for each in found],
        **sequential(*found, 0.05, 5_000),
    }


def ratio(counts: list[int], said: list[float]) -> dict[str, Any]:
    return {"counts": counts, "shares": said, "p": float(check_srm(counts, said))}


FIGURES = {
    "gbstats": version("gbstats"),
    "scipy": version("scipy"),
    "means": [
        means(120, 130, 0, 0.05, 5_000), means(1_000, 990, 0.1, 0.05, 5_000),
        means(5_000, 700, 0.2, 0.01, 1_000), means(40_000, 40_000, 0.02, 0.1, 20_000),
    ],
    "shares": [
        shares(200, 20, 210, 30, 0.05, 5_000), shares(5_000, 400, 5_000, 520, 0.05, 5_000),
        shares(9_000, 90, 1_000, 20, 0.01, 500),
    ],
    "cuped": [cuped(300, 280, 0.8), cuped(2_000, 500, 0.3), cuped(150, 160, 0.0)],
    "ratios": [
        ratio([951, 49], [0.95, 0.05]), ratio([5_000, 5_200], [0.5, 0.5]),
        ratio([900, 60, 80], [0.9, 0.05, 0.05]), ratio([10, 0], [0.9, 0.1]),
        ratio([300, 310, 290, 350], [1, 1, 1, 1]),
    ],
}  # fmt: skip

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(FIGURES, indent=1) + "\n")
