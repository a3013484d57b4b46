"""How often our gates, experiments and drift alarms are wrong, and what they find: no time is measured.

Gates are simulated on real rows: the outputs of two systems of the E2E challenge (tgen, slug) on its 630 test
inputs, with ROUGE-L as a real value and "every value of the input is in the text" as a yes or no. Beside
them stands what people do without statistics: a gate that compares means, a test repeated at every look.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import harness
import numpy as np
from error_rates_live import drift, figures, peeking, ratios

from foreword.evaluation.golden import GoldenRow
from foreword.evaluation.metrics.metric import Judged
from foreword.evaluation.metrics.suite import suite
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.statistics.error_rates import (
    Pair,
    Rates,
    margin_gate,
    simulate,
)
from foreword.evaluation.statistics.noninferiority import Outcome, noninferior
from foreword.evaluation.statistics.power import estimate, rows_needed, variance_of_pilot

Cohorts = Mapping[str, Pair]
ALPHA, MARGIN = 0.05, 0.05
_VALUE = re.compile(r"\[([^\]]+)\]")
_SAID_OTHERWISE = ("familyFriendly", "priceRange", "customer rating")


def measure(quick: bool) -> harness.Result:
    gates = 100 if quick else 1_000
    runs = 200 if quick else 2_000
    sets = {"ROUGE-L": _cohorts(_rouge), "all values said": _cohorts(_said)}
    raw: dict[str, Any] = {"alpha": ALPHA, "simulations": {"gates": gates, "experiments": runs}}
    raw["equal_arms"] = {name: _equal(cohorts, gates) for name, cohorts in sets.items()}
    raw["planted"] = [
        _planted(name, cohorts, points / 100, gates)
        for name, cohorts in sets.items()
        for points in (2, 5, 10)
    ]
    raw["three_rows"] = _three_rows(sets["all values said"], gates)
    raw["peeking"] = peeking(runs)
    raw["sample_ratio"] = ratios(runs)
    raw["drift"] = drift(100 if quick else 1_000)
    return harness.Result(_claims(raw), raw)


# The rows.


def _cohorts(score: Callable[[GoldenRow, str], float]) -> dict[str, Pair]:
    rows = [
        GoldenRow(
            id=str(number), cohort=row["cohort"], specialty="e2e", language="en",
            columns={"input": row["input"]}, references=tuple(row["references"]),
        )
        for number, row in enumerate(harness.read_rows("e2e/test.jsonl"))
    ]  # fmt: skip
    sides = [
        [score(*each) for each in zip(rows, _outputs(s), strict=True)] for s in ("tgen", "slug")
    ]
    found = {}
    for cohort in sorted({row.cohort for row in rows}):
        mine = [place for place, row in enumerate(rows) if row.cohort == cohort]
        candidate, incumbent = (np.array([side[place] for place in mine]) for side in sides)
        found[cohort] = Pair(candidate, incumbent)
    return found


def _outputs(system: str) -> list[str]:
    path = harness.DATA / "e2e" / "system_outputs" / f"{system}.txt"
    return path.read_text(encoding="utf-8").splitlines()


def _rouge(row: GoldenRow, text: str) -> float:
    (metric,) = suite(["rouge_l_13a"])
    table = metric.measure([Judged(row, Answer(text, None))])
    return table.value if table else 0.0


def _said(row: GoldenRow, text: str) -> float:
    """1 if every value that has to be said word for word is."""
    slots = [s for s in row.text.split(", ") if not s.startswith(_SAID_OTHERWISE)]
    values = [found.group(1) for slot in slots if (found := _VALUE.search(slot))]
    return float(all(value.lower() in text.lower() for value in values))


# Gates.


def _by_means(cohorts: Cohorts) -> Outcome:
    """What a gate without statistics does."""
    worst = min(float((p.candidate - p.incumbent).mean()) for p in cohorts.values())
    return "pass" if worst >= -MARGIN else "fail"


def _equal(cohorts: Cohorts, gates: int) -> dict[str, Any]:
    """False fails on equal arms, and false passes with a loss of just the margin in one cohort."""
    sides: dict[str, Any] = {"rows": {name: len(p.candidate) for name, p in cohorts.items()}}
    for side, gate in (("ours", margin_gate(MARGIN, ALPHA)), ("means", _by_means)):
        equal = simulate(cohorts, gate, gates, 1)
        lost = {
            name: simulate(cohorts, gate, gates, 2, planted=MARGIN, cohort=name) for name in cohorts
        }
        sides[side] = {
            "equal": _rates(equal),
            "false_pass": {name: figures(each.passes) for name, each in lost.items()},
        }
    return sides


def _planted(name: str, cohorts: Cohorts, loss: float, gates: int) -> dict[str, Any]:
    """A loss in one cohort, with margin half of it, and rows as the power formula asks for 80 %."""
    cohort, margin, power = "restaurant", loss / 2, 0.8
    known = cohorts[cohort]
    variance = variance_of_pilot(known.candidate - known.incumbent)
    settings: dict[str, Any] = {
        "variance": variance, "source": "pilot", "alpha": ALPHA, "power": power,
        "rules": len(cohorts),
    }  # fmt: skip
    rows = estimate(2, margin, loss, **settings).rows_to_fail
    stated = estimate(rows, margin, loss, **settings)
    sizes = dict.fromkeys(cohorts, rows)
    gate = margin_gate(margin, ALPHA)
    lost = simulate(cohorts, gate, gates, 3, planted=loss, cohort=cohort, sizes=sizes)
    equal_rows = rows_needed(variance, margin, alpha=ALPHA, power=power)
    equal = simulate({cohort: known}, gate, gates, 4, sizes={cohort: equal_rows})
    return {
        "score": name,
        "loss": loss,
        "margin": margin,
        "rows": rows,
        "stated_power": stated.fail_if_regressed,
        "found": figures(lost.fails),
        "passed": figures(lost.passes),
        "rows_to_pass": equal_rows,
        "stated_power_to_pass": power,
        "passed_if_equal": figures(equal.passes),
    }


def _three_rows(cohorts: Cohorts, gates: int) -> dict[str, Any]:
    sizes = dict.fromkeys(cohorts, 3)
    worst = max(
        _decided(simulate(cohorts, margin_gate(MARGIN, ALPHA), gates, 5, planted=loss, sizes=sizes))
        for loss in (0.0, 0.5)
    )
    extremes = [noninferior(np.full(3, value), MARGIN).outcome for value in (-1.0, 0.0, 1.0)]
    means = simulate(cohorts, _by_means, gates, 5, sizes=sizes)
    return {
        "decided": worst,
        "all_lost_all_equal_all_won": extremes,
        "means_fail_if_equal": figures(means.fails),
    }


def _decided(rates: Rates) -> float:
    return rates.passes.share + rates.fails.share


# What is claimed.


def _rates(found: Rates) -> dict[str, Any]:
    return {
        "pass": figures(found.passes),
        "fail": figures(found.fails),
        "insufficient": figures(found.insufficient),
    }


def _claims(raw: Mapping[str, Any]) -> list[harness.Claim]:
    equal, planted = raw["equal_arms"].values(), raw["planted"]
    fails = max(each["ours"]["equal"]["fail"]["share"] for each in equal)
    passes = max(each["share"] for e in equal for each in e["ours"]["false_pass"].values())
    short = max(each["stated_power"] - each["found"]["high"] for each in planted)
    to_pass = max(
        each["stated_power_to_pass"] - each["passed_if_equal"]["high"] for each in planted
    )
    missed = max(each["passed"]["share"] for each in planted)
    peeking = max(each["ours"]["share"] for each in raw["peeking"])
    # These tests are exact: their rate is the level itself, so half of all runs come out above it.
    drifted = max(each["false_alarms"]["low"] - each["level"] for each in raw["drift"].values())
    naive = min(each["repeated_z_test"]["share"] for each in raw["peeking"])

    def least(name: str, value: float, goal: float) -> harness.Claim:
        return harness.Claim(name, round(value, 5), goal, "higher", "of 1")

    def most(name: str, value: float, goal: float) -> harness.Claim:
        return harness.Claim(name, round(value, 5), goal, "lower", "of 1")

    return [
        most("false fails on equal arms, most of all sets", fails, ALPHA),
        most("false passes with a loss of the margin in one cohort, most of all", passes, ALPHA),
        most("stated power not reached, beyond chance (2, 5 and 10 points)", max(0.0, short), 0.0),
        most("stated power to pass not reached, beyond chance", max(0.0, to_pass), 0.0),
        most("passes in spite of a planted 2, 5 or 10 points", missed, ALPHA),
        most("verdicts on three rows", raw["three_rows"]["decided"], 0.0),
        most("false positives of the sequential test under peeking", peeking, ALPHA),
        least("false positives of a repeated z-test, for comparison", naive, ALPHA),
        most("false sample-ratio alarms under peeking at 0.05", raw["sample_ratio"]["ours"]["share"], ALPHA),
        most("false drift alarms above their level of 0.05, beyond chance", max(0.0, drifted), 0.0),
    ]  # fmt: skip


if __name__ == "__main__":
    harness.main(measure)
