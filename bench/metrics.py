"""Our metrics on the published outputs of the E2E challenge, beside its official figures and libraries.

Official: BLEU and NIST of six systems, ROUGE-L, CIDEr and METEOR of two, as the challenge's own scripts
(tuetschek/e2e-metrics) print them. Libraries: sacrebleu's public function in this process; nltk's NIST (on
the same tokens) and Google's rouge-score, which bear the names and are other metrics, in an environment of
their own. It measures no time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import harness

from foreword.evaluation.golden import GoldenRow
from foreword.evaluation.metrics.metric import Judged
from foreword.evaluation.metrics.suite import suite
from foreword.evaluation.metrics.words import sacrebleu, tokens_13a
from foreword.evaluation.runs.answers import Answer

OFFICIAL = {
    "tgen": {"bleu": 0.6593, "nist": 8.6094, "rouge_l": 0.6850, "cider": 2.2338, "meteor": 0.4483},
    "slug": {"bleu": 0.6619, "nist": 8.6130, "rouge_l": 0.6772, "cider": 2.2615, "meteor": 0.4454},
    "nle": {"bleu": 0.6534, "nist": 8.5300},
    "zhang": {"bleu": 0.6545, "nist": 8.1840},
    "gong": {"bleu": 0.6422, "nist": 8.3453},
    "chen": {"bleu": 0.5859, "nist": 5.4383},
}
OURS = {
    "bleu": "bleu",
    "nist": "nist",
    "rouge_l": "rouge_l_13a",
    "cider": "cider_13a",
    "chrf": "chrf",
}
"""Official name to ours; names that differ say that the figures do."""
PEERS = ("nltk==3.9.2", "rouge-score==0.1.2")
Figures = dict[str, dict[str, float]]


def rows() -> list[GoldenRow]:
    return [
        GoldenRow(
            id=f"e2e-{number}", cohort=row["cohort"], specialty="e2e", language="en",
            columns={"input": row["input"]}, references=tuple(row["references"]),
        )
        for number, row in enumerate(harness.read_rows("e2e/test.jsonl"))
    ]  # fmt: skip


def outputs(system: str) -> list[str]:
    path = harness.DATA / "e2e" / "system_outputs" / f"{system}.txt"
    return path.read_text(encoding="utf-8").splitlines()


def ours(golden: Sequence[GoldenRow], answers: Sequence[str]) -> dict[str, float]:
    """Values by official name."""
    judged = [Judged(row, Answer(a, None)) for row, a in zip(golden, answers, strict=True)]
    tables = {metric.name: metric.measure(judged) for metric in suite(OURS.values())}
    return {name: table.value for name, mine in OURS.items() if (table := tables[mine])}


def library(golden: Sequence[GoldenRow], answers: Sequence[str]) -> dict[str, float]:
    """sacrebleu by its public function."""
    most = max(len(row.references) for row in golden)
    streams = [
        [row.references[i] if i < len(row.references) else None for row in golden]
        for i in range(most)
    ]
    bleu = sacrebleu().BLEU(lowercase=True, force=True).corpus_score(list(answers), streams)
    cased = sacrebleu().BLEU(force=True).corpus_score(list(answers), streams)
    chrf = sacrebleu().CHRF().corpus_score(list(answers), streams)
    return {"bleu": bleu.score / 100, "bleu_cased": cased.score / 100, "chrf": chrf.score / 100}


def others(golden: Sequence[GoldenRow], systems: Sequence[str]) -> Figures:
    """nltk and rouge-score, by system."""
    home = Path(__file__).with_name(".peers-metrics")
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS]
    subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    asked = {
        "references": [row.references for row in golden],
        "answers": {system: outputs(system) for system in systems},
        "reference_tokens": [[tokens_13a(text) for text in row.references] for row in golden],
        "answer_tokens": {system: [tokens_13a(a) for a in outputs(system)] for system in systems},
    }
    run = subprocess.run(
        [str(python), str(Path(__file__).with_name("metrics_peers.py"))],
        input=json.dumps(asked), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: Figures = json.loads(run.stdout)
    return found


def measure(quick: bool) -> harness.Result:
    golden = rows()
    systems = ["tgen", "slug"] if quick else list(OFFICIAL)
    mine: Figures = {system: ours(golden, outputs(system)) for system in systems}
    peers: Figures = {system: library(golden, outputs(system)) for system in systems}
    if not quick:
        for system, values in others(golden, systems).items():
            peers[system] |= values
    show(mine, peers)
    return harness.Result(
        claims(mine, peers),
        {"rows": len(golden), "ours": mine, "official": OFFICIAL, "libraries": peers,
         "not_computed": ["meteor"]},
    )  # fmt: skip


def show(mine: Figures, peers: Figures) -> None:
    for system, values in mine.items():
        for name, value in values.items():
            official = OFFICIAL[system].get(name)
            beside = f"official {official:.4f}" if official is not None else "no official figure"
            others = ", ".join(f"{k} {v:.4f}" for k, v in peers[system].items() if name in k)
            print(f"{system:6} {OURS[name]:12} {value:.4f}   {beside}   {others}", flush=True)


def claims(mine: Figures, peers: Figures) -> list[harness.Claim]:
    def off(name: str) -> float:
        """Largest difference from the official figures, which have four digits."""
        return max(
            abs(round(values[name], 4) - OFFICIAL[system][name])
            for system, values in mine.items()
            if name in OFFICIAL[system]
        )

    def from_library(name: str) -> float:
        return max(abs(values[name] - peers[system][name]) for system, values in mine.items())

    def claim(what: str, value: float, goal: float) -> harness.Claim:
        return harness.Claim(what, round(value, 6), goal, "lower", "points")

    return [
        claim("BLEU, largest difference from official", off("bleu"), 0.00001),
        claim("NIST, largest difference from official", off("nist"), 0.00001),
        claim("ROUGE-L on 13a tokens, largest difference from official", off("rouge_l"), 0.002),
        claim("CIDEr on 13a tokens, largest difference from official", off("cider"), 0.02),
        claim("BLEU, largest difference from sacrebleu", from_library("bleu"), 0.0),
        claim("chrF, largest difference from sacrebleu", from_library("chrf"), 0.0),
    ]


if __name__ == "__main__":
    harness.main(measure)
