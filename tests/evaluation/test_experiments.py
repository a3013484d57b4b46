"""Experiments: the figures of gbstats, no more false alarms for looking often, and traffic as it was said."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreword.artifact import Digest
from foreword.errors import UsageError
from foreword.evaluation.experiments.arms import Arm, Shares, Values
from foreword.evaluation.experiments.assignment import check_sticky, sample_ratio
from foreword.evaluation.experiments.cuped import WithPast, cuped
from foreword.evaluation.experiments.sequential import Comparison, compare
from foreword.registry.references import ByName
from foreword.registry.releases import Release
from tests.gateway.routing.made import released, table_of

PEER: dict[str, Any] = json.loads((Path(__file__).parent / "gbstats.json").read_text())
"""What gbstats 0.8.0 gives for these sums: `gbstats_figures.py` wrote it, where its pins are met."""
ONE, TWO, THREE = (Digest.of(text) for text in (b"one", b"two", b"three"))


def same(found: Comparison, peer: Mapping[str, Any]) -> None:
    expected = [peer[name] for name in ("difference", "low", "high", "p")]
    assert [found.difference, found.low, found.high, found.p] == pytest.approx(expected, rel=1e-9)


def looked(kind: type[Values] | type[Shares], case: Mapping[str, Any]) -> Comparison:
    arms = [kind(*case[side]) for side in ("stable", "canary")]
    return compare(*arms, alpha=case["alpha"], tuning=case["tuning"], fewest=1)


@pytest.mark.parametrize("case", PEER["means"])
def test_means_are_compared_as_gbstats_does(case: dict[str, Any]) -> None:
    same(looked(Values, case), case)


@pytest.mark.parametrize("case", PEER["shares"])
def test_shares_are_compared_as_gbstats_does(case: dict[str, Any]) -> None:
    same(looked(Shares, case), case)


@pytest.mark.parametrize("case", PEER["cuped"])
def test_cuped_adjusts_as_gbstats_does(case: dict[str, Any]) -> None:
    found = cuped(*(with_past(case[side]) for side in ("stable", "canary")))
    assert found.theta == pytest.approx(case["theta"], rel=1e-9)
    assert [found.stable.mean, found.canary.mean] == pytest.approx(case["means"], rel=1e-9)
    variances = [found.stable.variance, found.canary.variance]
    assert variances == pytest.approx(case["variances"], rel=1e-9)
    same(compare(found.stable, found.canary, fewest=1), case)


@pytest.mark.parametrize("case", PEER["ratios"])
def test_the_split_is_checked_as_gbstats_does(case: dict[str, Any]) -> None:
    arms = [str(place) for place in range(len(case["counts"]))]
    found = sample_ratio(
        dict(zip(arms, case["counts"], strict=True)), dict(zip(arms, case["shares"], strict=True))
    )
    assert found.p == pytest.approx(case["p"], rel=1e-9)


def test_gbstats_itself_agrees_where_it_is_installed() -> None:
    tests = pytest.importorskip("gbstats.frequentist.tests")
    statistics = pytest.importorskip("gbstats.models.statistics")
    config = tests.SequentialConfig(
        difference_type="absolute", traffic_proportion_b=1, phase_length_days=1, alpha=0.05
    )
    peer = tests.SequentialTwoSidedTTest(
        statistics.ProportionStatistic(n=5000, sum=400),
        statistics.ProportionStatistic(n=4000, sum=420), config,
    ).compute_result()  # fmt: skip
    found = compare(Shares(5000, 400), Shares(4000, 420), fewest=1)
    assert [found.low, found.high, found.p] == pytest.approx([*peer.ci, peer.p_value], rel=1e-9)


def with_past(case: Mapping[str, Any]) -> WithPast:
    return WithPast(Values(*case["now"]), Values(*case["before"]), case["products"])


def stops(a: np.ndarray, b: np.ndarray) -> tuple[bool, bool]:
    """Whether somebody who looks at every 50 units stops: by this test, and by a z-test each time."""
    ours = naive = False
    for n in range(100, len(a) + 1, 50):
        arms: list[Arm] = [Shares(n, int(each[:n].sum())) for each in (a, b)]
        ours |= compare(*arms).is_different
        error = math.sqrt(sum(arm.variance / n for arm in arms))
        naive |= error > 0 and abs(arms[0].mean - arms[1].mean) > 1.96 * error
    return ours, naive


def test_looking_often_makes_no_false_positives_and_a_repeated_test_many() -> None:
    draw = np.random.default_rng(1)
    found = [stops(*(draw.random((2, 3_000)) < 0.1)) for _ in range(300)]
    ours, naive = (sum(side) / 300 for side in zip(*found, strict=True))
    assert ours <= 0.05
    assert naive > 0.2


def test_a_real_difference_is_found_and_the_interval_holds_it() -> None:
    draw = np.random.default_rng(2)
    arms = [Shares(8_000, int((draw.random(8_000) < p).sum())) for p in (0.10, 0.14)]
    found = compare(*arms)
    assert found.is_different
    assert found.low < 0.04 < found.high
    assert found.low > 0
    assert found.p == pytest.approx(1 / found.evidence)


def test_before_there_is_enough_nothing_is_said() -> None:
    found = compare(Shares(99, 0), Shares(10_000, 9_000))
    assert (found.p, found.low, found.high) == (1.0, -math.inf, math.inf)
    assert compare(Shares(500, 0), Shares(500, 0)).p == 1.0  # no variance, so no interval
    assert not compare(Values(0, 0, 0), Values(0, 0, 0), fewest=1).is_different


def test_the_past_takes_variance_away_and_leaves_the_difference() -> None:
    draw = np.random.default_rng(4)
    arms = []
    for shift in (0.0, 0.3):
        before = draw.normal(5, 1, 4_000)
        now = before + draw.normal(shift, 0.5, 4_000)
        sums = (float((now * before).sum()),)
        moments = [Values(4_000, float(x.sum()), float((x**2).sum())) for x in (now, before)]
        arms.append(WithPast(*moments, *sums))
    found = cuped(*arms)
    assert found.reduction == pytest.approx(0.8, abs=0.02)  # 1 - 0.25 / 1.25
    assert found.canary.mean - found.stable.mean == pytest.approx(0.3, abs=0.05)
    constant = WithPast(arms[0].now, Values(4_000, 4_000.0, 4_000.0), arms[0].now.total)
    assert cuped(constant, constant).theta == 0.0


def test_a_wrong_split_is_noticed_and_a_right_one_is_not_however_often_it_is_looked_at() -> None:
    shares = {"stable": 0.9, "canary": 0.1}
    assert sample_ratio({"stable": 9_000, "canary": 1_300}, shares).is_mismatch
    assert sample_ratio({"stable": 0, "canary": 0}, shares).p == 1.0
    draw = np.random.default_rng(5)
    alarms = naive = 0
    for _ in range(200):
        canary = np.cumsum(draw.random(2_000) < 0.1)
        looks = [
            sample_ratio({"stable": n - int(canary[n - 1]), "canary": int(canary[n - 1])}, shares)
            for n in range(50, 2_001, 50)
        ]
        alarms += any(each.p_always <= 0.05 for each in looks)
        naive += any(each.p <= 0.05 for each in looks)
    assert alarms / 200 <= 0.05 < naive / 200


def test_what_the_gateways_table_gives_is_what_the_release_says() -> None:
    name = "acme/support"
    log = released(name, canary=0.2)
    table, release = table_of(log), log.state.name(name).release
    assert release is not None
    served = []
    for request in range(3_000):
        key = f"user-{request % 1_000}"
        choice = table.find(ByName(name), key)
        assert choice is not None
        served.append((key, choice.known.digest))
    found = check_sticky(served, release)
    assert found.is_sound
    assert found.requests == 3_000
    assert sum(found.counts.values()) == 1_000
    ratio = sample_ratio(found.counts, {"stable": 0.8, "canary": 0.2})
    assert not ratio.is_mismatch


def test_keys_that_got_another_version_or_changed_it_are_named() -> None:
    release = Release("acme/support", ONE, TWO, 0.5)
    keys = [f"user-{i}" for i in range(40)]
    right = [(key, release.pick(key).digest) for key in keys]
    assert check_sticky(right, release).is_sound
    other = TWO if right[0][1] == ONE else ONE
    found = check_sticky([*right, (keys[0], other), (keys[1], THREE)], release)
    assert found.wavering == (keys[0], keys[1])
    assert {(each.key, each.got) for each in found.misplaced} == {
        (keys[0], other), (keys[1], THREE),
    }  # fmt: skip


@pytest.mark.parametrize(
    "call",
    [
        lambda: Shares(3, 4),
        lambda: Values(-1, 0, 0),
        lambda: compare(Shares(9, 1), Shares(9, 1), alpha=1.5),
        lambda: sample_ratio({"stable": 1}, {"stable": 1.0}),
        lambda: sample_ratio({"a": 1, "b": 2}, {"a": 1.0, "b": 0.0}),
    ],
)
def test_what_makes_no_sense_is_refused(call: Any) -> None:
    with pytest.raises(UsageError) as refused:
        call()
    assert refused.value.code.startswith("experiment.")
