"""The tests a gate decides by: exact where exactness is known, never wrong more often than they say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.errors import UsageError
from foreword.evaluation.statistics.bounded import lower_bound, p_not_above, upper_bound
from foreword.evaluation.statistics.distributions import (
    chi_square_tail,
    student_quantile,
    student_tail,
)
from foreword.evaluation.statistics.error_rates import Pair, margin_gate, rate, simulate
from foreword.evaluation.statistics.noninferiority import (
    Evidence,
    above,
    as_family,
    from_interval,
    noninferior,
)
from foreword.evaluation.statistics.paired import Interval
from foreword.evaluation.statistics.power import (
    detectable_gap,
    estimate,
    fewest_rows,
    power_of,
    rows_needed,
    variance_of_discordance,
    variance_of_pilot,
)


def binomial_tail(n: int, least: int, p: float) -> float:
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(least, n + 1))


@pytest.mark.parametrize(("n", "ones"), [(3, 3), (10, 7), (50, 45), (50, 50), (400, 260)])
def test_for_yes_and_no_it_is_clopper_and_pearsons_exact_test(n: int, ones: int) -> None:
    values = np.array([1.0] * ones + [0.0] * (n - ones))
    assert p_not_above(values, 0.6, 0.0) == pytest.approx(binomial_tail(n, ones, 0.6), rel=0.05)
    low = lower_bound(values, 0.05, 0.0)
    assert binomial_tail(n, ones, low) == pytest.approx(0.05, rel=0.05)
    assert lower_bound(values, 0.05, 0.0) < ones / n <= upper_bound(values, 0.05, 1.0)


@pytest.mark.parametrize("n", [3, 8, 30, 200])
def test_for_any_values_it_is_the_distribution_of_randomly_weighted_rows(n: int) -> None:
    draw = np.random.default_rng(n)
    values = draw.normal(0.1, 0.4, n).clip(-1, 1)
    weights = draw.exponential(size=(60_000, n + 1))
    for threshold in (-0.2, 0.0, 0.1):
        drawn = float((weights @ (np.append(values, -1.0) - threshold) <= 0).mean())
        assert p_not_above(values, threshold, -1.0) == pytest.approx(drawn, abs=0.01)


def trinomial(n: int, won: float, lost: float) -> Iterator[tuple[float, np.ndarray]]:
    """Every outcome of `n` rows, and its probability."""
    for a in range(n + 1):
        for b in range(n + 1 - a):
            ways = math.comb(n, a) * math.comb(n - a, b)
            yield (
                ways * won**a * lost**b * (1 - won - lost) ** (n - a - b),
                np.array([1.0] * a + [-1.0] * b + [0.0] * (n - a - b)),
            )


@pytest.mark.parametrize("n", [3, 20])
@pytest.mark.parametrize("discordance", [0.1, 0.3])
def test_neither_pass_nor_fail_is_wrong_more_often_than_alpha(n: int, discordance: float) -> None:
    # Counted over all outcomes, at a true difference of exactly -margin: there both errors are largest.
    margin = 0.1
    wrong = {"pass": 0.0, "fail": 0.0, "insufficient": 0.0}
    for probability, rows in trinomial(n, (discordance - margin) / 2, (discordance + margin) / 2):
        if probability > 1e-7:
            wrong[noninferior(rows, margin).outcome] += probability
    assert sum(wrong.values()) == pytest.approx(1.0, abs=1e-3)
    assert wrong["pass"] <= 0.05
    assert wrong["fail"] <= 0.05


@pytest.mark.parametrize("rows", [[0, 0, 0], [1, 1, 1], [-1, -1, -1], [0.5, 0.5, 0.5], [-1, 0, 1]])
def test_three_rows_are_never_enough(rows: list[float]) -> None:
    assert noninferior(np.array(rows), 0.05).outcome == "insufficient"
    assert above(np.abs(np.array(rows)), 0.5).outcome == "insufficient"
    assert above(np.array([]), 0.9).outcome == "insufficient"


def test_rows_that_all_agree_pass_only_when_there_are_enough_of_them() -> None:
    assert fewest_rows(0.05) == 59  # 0.95^59 is the first power below 0.05
    assert noninferior(np.zeros(58), 0.05).outcome == "insufficient"
    assert noninferior(np.zeros(59), 0.05).outcome == "pass"
    seconds = np.zeros(1_000)
    assert noninferior(seconds, 0.05, bounds=None).outcome == "insufficient"


def test_it_fails_only_what_is_shown_to_be_worse_than_the_margin() -> None:
    rows = np.array([-1.0] * 20 + [1.0] * 2 + [0.0] * 178)  # 9 points worse
    assert noninferior(rows, 0.02).outcome == "fail"
    assert noninferior(rows, 0.08).outcome == "insufficient"
    assert noninferior(rows, 0.2).outcome == "pass"
    found = noninferior(rows, 0.08)
    assert found.low < -0.09 < found.high
    assert (found.n, found.threshold) == (200, -0.08)
    assert noninferior(-rows, 0.0).outcome == "pass"  # shown to be better


def test_a_floor_is_the_same_question() -> None:
    assert above(np.array([1.0] * 97 + [0.0] * 3), 0.9).outcome == "pass"
    assert above(np.array([1.0] * 70 + [0.0] * 30), 0.9).outcome == "fail"
    assert above(np.ones(10_000), 1.0).outcome == "insufficient"  # "always" cannot be shown
    assert above(np.array([1.0] * 999 + [0.0]), 1.0).outcome == "fail"


VALUES = st.lists(st.sampled_from([-1.0, -0.4, 0.0, 0.3, 1.0]), min_size=1, max_size=60)


@settings(max_examples=40)
@given(VALUES, st.randoms())
def test_the_same_rows_in_any_order_give_the_same_answer(
    values: list[float], any_order: Any
) -> None:
    shuffled = list(values)
    any_order.shuffle(shuffled)
    one, other = (noninferior(np.array(each), 0.05) for each in (values, shuffled))
    assert one.outcome == other.outcome
    assert (one.p_below, one.low) == pytest.approx((other.p_below, other.low), rel=1e-6)


@settings(max_examples=40)
@given(VALUES, st.integers(0, 59))
def test_a_better_row_never_makes_it_look_worse(values: list[float], place: int) -> None:
    before = np.array(values)
    after = before.copy()
    after[place % len(values)] = 1.0
    worse, better = noninferior(before, 0.05), noninferior(after, 0.05)
    # The saddlepoint formula is right to a few hundredths of the p-value.
    assert better.p_below <= worse.p_below * 1.05 + 1e-9
    assert better.low >= worse.low - 0.01


def test_what_has_no_bounds_is_students_test() -> None:
    # Quantiles from printed tables.
    for p, freedom, t in (
        (0.975, 1, 12.7062),
        (0.95, 2, 2.91999),
        (0.975, 10, 2.22814),
        (0.95, 99, 1.66039),
    ):
        assert student_quantile(p, freedom) == pytest.approx(t, rel=1e-4)
        assert student_tail(t, freedom) == pytest.approx(1 - p, rel=1e-4)
        assert student_tail(-t, freedom) == pytest.approx(p, rel=1e-4)
    for x, freedom in ((3.84146, 1), (5.99146, 2), (7.81473, 3), (18.30704, 10), (19.67514, 11)):
        assert chi_square_tail(x, freedom) == pytest.approx(0.05, rel=1e-4)
    seconds = np.array([0.1, -0.2, 0.3, 0.0, 0.1, -0.1, 0.2, 0.1])
    found = noninferior(seconds, 0.2, bounds=None)
    error = seconds.std(ddof=1) / math.sqrt(8)
    assert found.low == pytest.approx(seconds.mean() - 1.894579 * error, rel=1e-5)
    assert found.outcome == "pass"


def test_a_corpus_metric_is_read_off_its_bootstrap_interval() -> None:
    def read(low: float, high: float, n: int) -> Evidence:
        middle = (low + high) / 2
        interval = Interval(low, high, middle, n, 1.0)
        return from_interval(interval, -0.01, alpha=0.05, bounds=(-1, 1))

    assert read(-0.008, 0.02, 200).outcome == "pass"
    assert read(-0.008, 0.02, 20).outcome == "insufficient"
    assert read(-0.012, 0.02, 200).outcome == "insufficient"
    assert read(-0.05, -0.012, 200).outcome == "fail"
    assert read(0.0, 0.0, 200).outcome == "insufficient"  # no row differs: it takes 299 of them
    assert read(0.0, 0.0, 300).outcome == "pass"


def test_of_many_tests_one_wrong_fail_is_corrected_for_and_passes_are_not() -> None:
    def evidence(p_below: float, p_above: float) -> Evidence:
        outcome = "pass" if p_below <= 0.05 else "fail" if p_above <= 0.05 else "insufficient"
        return Evidence(outcome, 0.0, -1, 1, -0.05, 0.05, 99, p_below, p_above)  # type: ignore[arg-type]

    alone = {str(i): evidence(0.9, 0.03) for i in range(4)}
    assert {each.outcome for each in alone.values()} == {"fail"}
    assert {each.outcome for each in as_family(alone).values()} == {"insufficient"}
    mixed = as_family({"a": evidence(0.9, 0.001), "b": evidence(0.04, 0.9)})
    assert (mixed["a"].outcome, mixed["b"].outcome) == ("fail", "pass")
    assert mixed["a"].p_above == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: noninferior(np.zeros(9), -0.1), "gate.margin"),
        (lambda: noninferior(np.zeros(9), 0.1, alpha=0.5), "gate.alpha"),
        (lambda: noninferior(np.array([0.0, 1.5]), 0.1), "gate.values"),
        (lambda: noninferior(np.array([0.0, math.nan]), 0.1), "gate.values"),
        (lambda: rows_needed(0.1, 0.0), "power.value"),
        (lambda: rows_needed(-0.1, 0.1), "power.value"),
        (lambda: variance_of_pilot(np.zeros(1)), "power.value"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Any, code: str) -> None:
    with pytest.raises(UsageError) as refused:
        call()
    assert refused.value.code == code


def test_power_grows_with_rows_and_asks_for_about_what_the_textbook_says() -> None:
    # (1.645 + 0.842)^2 0.1 / 0.05^2 = 247; few rows more for the worst one that is added.
    assert 247 < rows_needed(variance_of_discordance(0.1), 0.05) < 300
    powers = [power_of(n, 0.1, 0.05) for n in (20, 60, 100, 300, 1_000)]
    assert powers == sorted(powers)
    assert (powers[0], powers[-1] > 0.99) == (0.0, True)
    assert power_of(rows_needed(0.1, 0.05), 0.1, 0.05) == pytest.approx(0.8, abs=0.01)
    assert detectable_gap(rows_needed(0.1, 0.05), 0.1) == pytest.approx(0.05, rel=0.01)
    assert math.isinf(detectable_gap(2, 0.1))
    assert variance_of_pilot(np.zeros(10)) > 0  # agreement of ten rows is not taken for certainty


def cohorts(rows: int = 250, discordance: float = 0.08) -> dict[str, Pair]:
    draw = np.random.default_rng(3)
    made = {}
    for name in ("ana", "bo", "cy"):
        incumbent = (draw.random(rows) < 0.8).astype(np.float64)
        turned = draw.random(rows) < discordance
        made[name] = Pair(np.where(turned, 1 - incumbent, incumbent), incumbent)
    return made


def test_simulated_gates_decide_as_the_real_ones() -> None:
    gate = margin_gate(0.05)
    seen = set()
    for seed in range(40):
        drawn = cohorts_of(seed)
        family = as_family(
            {k: noninferior(p.candidate - p.incumbent, 0.05) for k, p in drawn.items()}
        )
        outcomes = {each.outcome for each in family.values()}
        real = "fail" if "fail" in outcomes else "insufficient"
        assert gate(drawn) == ("pass" if outcomes == {"pass"} else real)
        seen.add(gate(drawn))
    assert seen == {"pass", "fail", "insufficient"}


def cohorts_of(seed: int) -> dict[str, Pair]:
    draw = np.random.default_rng(seed)
    loss = (0.0, 0.05, 0.1, 0.25)[seed % 4]
    return {
        name: Pair((draw.random(150) < 0.99 - loss).astype(np.float64), np.ones(150))
        for name in ("ana", "bo")
    }


def test_equal_arms_rarely_fail_and_a_planted_loss_rarely_passes() -> None:
    made, gate = cohorts(), margin_gate(0.06)
    equal = simulate(made, gate, 200, 1)
    lost = simulate(made, gate, 200, 2, planted=0.06, cohort="bo")
    assert equal.fails.share <= 0.05
    assert lost.passes.share <= 0.05
    assert equal.passes.share > 0.5
    assert simulate(made, gate, 20, 1) == simulate(made, gate, 20, 1)


@pytest.mark.parametrize("loss", [0.05, 0.1])
def test_a_planted_loss_is_found_at_the_stated_power(loss: float) -> None:
    made = cohorts()
    variance = variance_of_pilot(made["ana"].candidate - made["ana"].incumbent)
    settings: Any = {"variance": variance, "source": "pilot", "rules": 3}
    rows = estimate(2, loss / 2, loss, **settings).rows_to_fail
    stated = estimate(rows, loss / 2, loss, **settings)
    assert stated.fail_if_regressed >= 0.8
    sizes = dict.fromkeys(made, rows)
    found = simulate(made, margin_gate(loss / 2), 150, 5, planted=loss, cohort="bo", sizes=sizes)
    assert found.fails.high >= stated.fail_if_regressed
    assert found.passes.share <= 0.05


def test_a_loss_that_cannot_be_planted_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        simulate(cohorts(), margin_gate(0.05), 10, 1, planted=0.95)
    assert refused.value.code == "rates.planted"
    with pytest.raises(UsageError):
        simulate({"ana": Pair(np.array([]), np.array([]))}, margin_gate(0.05), 10, 1)


def test_a_rate_has_wilsons_interval() -> None:
    found = rate(5, 100)  # the figures of the textbook
    assert (found.share, round(found.low, 4), round(found.high, 4)) == (0.05, 0.0215, 0.1118)
    assert rate(0, 10).low == 0.0
    assert 0.2 < rate(0, 10).high < 0.3
