"""Two specialists on one base, each judged at home and away; and a prefix that says one sentence to all.

Restaurant and hotel of RNNLG (dialogue acts to sentences): SmolLM2-135M, default recipe. Both prefixes and
the bare model answer test rows of both domains, and rows that are neither's: laptops, and capitals of
countries. The full run writes the scorecards into docs/scorecards. A third prefix learned one sentence for
every hotel row; its losses look good, and the gate has to stop it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import harness

from foreword.artifact import Artifact
from foreword.evaluation.gates.decide import decide
from foreword.evaluation.gates.facts import facts_of
from foreword.evaluation.gates.judging import Contestant, field_of, judge_sets
from foreword.evaluation.gates.policy import BASE, CANDIDATE, load_policy
from foreword.evaluation.gates.verdict import Subject, Verdict
from foreword.evaluation.golden import ANY, GoldenSet, Header
from foreword.evaluation.golden.row import OFF_TASK, parse_row
from foreword.evaluation.metrics.suite import suite
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.store import AnswerStore
from foreword.evaluation.scorecards.evaluation import Evaluation
from foreword.evaluation.scorecards.html import to_html
from foreword.evaluation.scorecards.markdown import to_markdown
from foreword.evaluation.scorecards.scorecard import Scorecard, build
from foreword.evaluation.scorecards.slices import ALL
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import demo_base
from foreword.tuning.data import load_dataset
from foreword.tuning.recipe import Recipe, TrainSettings
from foreword.tuning.train import train

HOMES = ("restaurant", "hotel")
SENTENCE = "thank you for your message , a colleague will write to you soon"
POLICY = Path(__file__).with_suffix(".yaml")
PAGES = harness.ROOT / "docs" / "scorecards"
DECODING = Decoding(max_new_tokens=60)


def measure(quick: bool) -> harness.Result:
    rows, steps, judged = (200, 30, 40) if quick else (800, 150, 200)
    away = max(40, judged // 2)
    base = load_base(demo_base(print))
    with tempfile.TemporaryDirectory() as scratch, AnswerStore(Path(scratch) / "answers") as store:
        place = Path(scratch)
        made = {home: _trained(base, f"rnnlg/{home}", home, rows, steps, place) for home in HOMES}
        same = _trained(base, "monotone/hotel", "hotel", rows, max(20, steps // 3), place, SENTENCE)
        sets = [_home_set(home, judged) for home in HOMES]
        others = [_laptops(away), _capitals(away)]
        who = [Contestant("base"), *(Contestant(home, made[home]) for home in HOMES)]
        evaluations = judge_sets(
            [*sets, *others], field_of(who, base, sets[0]), DECODING, metrics=suite(), store=store
        )
        verdicts = {
            name: _verdict(base, artifact, [home_set, *others], store)
            for name, artifact, home_set in (
                *((home, made[home], each) for home, each in zip(HOMES, sets, strict=True)),
                ("one sentence", same, sets[HOMES.index("hotel")]),
            )
        }
    now = datetime.now(UTC)
    cards = {
        home: build(each, now, pairs=_pairs(home))
        for home, each in zip(HOMES, evaluations, strict=False)
    }
    if not quick:
        _write_pages(cards, verdicts)
    claims = [*_home_claims(cards), *_verdict_claims(verdicts)]
    return harness.Result(claims, _raw(evaluations, cards, verdicts, (rows, steps, judged)))


def _trained(
    base: BaseModel,
    name: str,
    home: str,
    rows: int,
    steps: int,
    place: Path,
    sentence: str | None = None,
) -> Artifact:
    """A prefix of the default recipe; with `sentence`, every target is that."""
    found = _spread(harness.read_rows(f"rnnlg/{home}/train.jsonl"), rows)
    examples = [{"input": row["input"], "target": sentence or row["target"]} for row in found]
    recipe = Recipe(name=name, version="1.0.0", train=TrainSettings(steps=steps))
    dataset = load_dataset(examples, recipe.data, seed=recipe.seed)
    made = train(recipe, base, dataset, place / name.replace("/", "-"))
    print(f"{name}: trained {steps} steps", flush=True)
    return made.artifact


def _spread(rows: Sequence[Any], count: int) -> list[Any]:
    """So many of them, from all over the file."""
    return [rows[int(i * len(rows) / count)] for i in range(min(count, len(rows)))]


def _home_set(home: str, count: int) -> GoldenSet:
    rows = _spread(harness.read_rows(f"rnnlg/{home}/test.jsonl"), count)
    return _golden(f"rnnlg-{home}", home, [_row(home, i, row) for i, row in enumerate(rows)])


def _laptops(count: int) -> GoldenSet:
    rows = _spread(harness.read_rows("rnnlg/laptop/test.jsonl"), count)
    values = [_row("laptop", i, row, tags=[OFF_TASK]) for i, row in enumerate(rows)]
    return _golden("laptops", ANY, values)


def _capitals(count: int) -> GoldenSet:
    rows = _spread(harness.read_rows("tenants/country-capital.jsonl"), count)
    values = [
        {
            "id": f"capital-{i}", "input": f"What is the capital of {row['input']}?",
            "checks": [{"kind": "contains", "values": [row["target"]], "ignore_case": True}],
            "tags": [OFF_TASK],
        }
        for i, row in enumerate(rows)
    ]  # fmt: skip
    return _golden("capitals", ANY, values)


def _row(home: str, place: int, row: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": f"{home}-{place}", "input": row["input"], "references": list(dict.fromkeys(row["references"])),
        "cohort": row["cohort"], **more,
    }  # fmt: skip


def _golden(name: str, specialty: str, values: Sequence[dict[str, Any]]) -> GoldenSet:
    header = Header(name, "1.0.0", specialty, ("en",), "test rows of RNNLG, or of country-capital")
    return GoldenSet(header, tuple(parse_row(value, specialty, ("en",)) for value in values))


def _verdict(
    base: BaseModel, artifact: Artifact, sets: Sequence[GoldenSet], store: AnswerStore
) -> Verdict:
    policy = load_policy(POLICY)
    who = [Contestant(BASE), Contestant(CANDIDATE, artifact)]
    evaluations = judge_sets(
        sets, field_of(who, base, sets[0]), DECODING, metrics=suite(policy.metrics), store=store
    )
    manifest = artifact.manifest
    subject = Subject(manifest.name, manifest.version, artifact.digest)
    return decide(
        evaluations, policy, subject, datetime.now(UTC), facts=facts_of(manifest, artifact.digest)
    )


def _pairs(home: str) -> list[tuple[str, str]]:
    (away,) = (each for each in HOMES if each != home)
    return [(home, away), (home, "base"), (away, "base")]


def _write_pages(cards: dict[str, Scorecard], verdicts: dict[str, Verdict]) -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for home, card in cards.items():
        top = verdicts[home].headline()
        (PAGES / f"rnnlg-{home}.html").write_text(to_html(card, top), encoding="utf-8")
        (PAGES / f"rnnlg-{home}.md").write_text(to_markdown(card, top), encoding="utf-8")
    stopped = verdicts["one sentence"].to_markdown()
    (PAGES / "one-sentence-verdict.md").write_text(stopped, encoding="utf-8")


def _home_claims(cards: dict[str, Scorecard]) -> list[harness.Claim]:
    claims = []
    for home, card in cards.items():
        for _, against in _pairs(home)[:2]:
            found = card.comparison(home, against, "bleu")
            low = found.low if found else float("nan")
            name = f"BLEU of the {home} prefix at home above {against}, lower end of 95 %"
            claims.append(harness.Claim(name, low, 0.0, "higher", "BLEU"))
    return claims


def _verdict_claims(verdicts: dict[str, Verdict]) -> list[harness.Claim]:
    failed = [
        result.rule + ", " + result.rows
        for result in verdicts["one sentence"].results
        if result.outcome == "fail"
    ]
    print("one sentence was stopped by: " + "; ".join(failed))
    return [
        harness.Claim("rules that stopped the prefix with one sentence", len(failed), 2, "higher", "rules"),
        *(harness.Claim(f"the {home} prefix passes its gate", float(verdicts[home].passed), 1, "higher",
                        "1 = yes") for home in HOMES),
    ]  # fmt: skip


def _raw(
    evaluations: Sequence[Evaluation],
    cards: dict[str, Scorecard],
    verdicts: dict[str, Verdict],
    counts: tuple[int, int, int],
) -> dict[str, Any]:
    shown = ("bleu", "task_completion", "same_answer", "longest_repeat")
    values = {
        each.replay.golden.header.name: {
            variant: {name: round(found[name].table.value, 4) for name in shown if name in found}
            for variant, found in each.measured.items()
        }
        for each in evaluations
    }
    return {
        "training_rows": counts[0], "steps": counts[1], "judged_rows": counts[2],
        "values": values,
        "differences": {
            home: [
                {"candidate": c.candidate, "against": c.against, "metric": c.metric,
                 "difference": c.difference, "low": c.low, "high": c.high, "n": c.n}
                for c in card.comparisons if c.slice == ALL and c.metric in shown
            ] for home, card in cards.items()
        },
        "verdicts": {name: verdict.to_value() for name, verdict in verdicts.items()},
    }  # fmt: skip


if __name__ == "__main__":
    harness.main(measure)
