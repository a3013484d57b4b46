"""The main job, start to end: one frozen model becomes two products.

Fetches the demo base, trains a prefix for each of two example tenants, answers held-out inputs with
the frozen model and with each prefix, and scores both. What is there already is reused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import scoring
from rich.console import Console
from rich.table import Table

import foreword
from foreword.cli.output import quiet_libraries
from foreword.cli.train import Bar
from foreword.config import load_settings
from foreword.prefix.bases import demo_base
from foreword.tuning.formats import read_rows

HERE = Path(__file__).parent
OUT = HERE.parent / "demo-run"
SHOWN, NEW_TOKENS = 3, 60
console = Console(highlight=False)
Score = Callable[[Sequence[str], Sequence[str], Sequence[str]], float]


@dataclass(frozen=True)
class Tenant:
    """One product: its data, what it is for, and how its answers are scored."""

    name: str
    does: str
    instruction: str
    """What the frozen model is asked to do, through its chat template."""
    scores: dict[str, Score]


TENANTS = (
    Tenant(
        "trails",
        "writes a sentence from structured input",
        "Write one sentence that describes this hiking trail: {input}",
        {
            "BLEU": lambda inputs, answers, targets: scoring.bleu(answers, targets),
            "values mentioned, %": lambda i, a, t: scoring.attributes_mentioned(i, a),
        },
    ),
    Tenant(
        "tickets",
        "answers with strict JSON",
        'Answer with JSON only, keys "intent" (refund, delivery, defect, account or question), '
        '"product", "urgency" (low, normal or high) and "order", for this message: {input}',
        {
            "exact schema, %": lambda inputs, answers, targets: scoring.exact_schema(answers),
            "fields right, %": lambda i, a, t: scoring.field_accuracy(a, t),
        },
    ),
)


def main() -> None:
    began = time.monotonic()
    quiet_libraries()
    console.print("[bold]The base[/bold]: SmolLM2-135M-Instruct, frozen")
    demo_base(lambda line: console.print(f"  {line}"))
    base = foreword.load_base("demo")
    for tenant in TENANTS:
        console.print(f"\n[bold]{tenant.name}[/bold]: {tenant.does}")
        artifact = _trained(base, tenant)
        _compare(base, tenant, artifact)
    console.print(f"\ndone in {time.monotonic() - began:.0f} s; what to type next:")
    for tenant in TENANTS:
        console.print(f"  .venv/bin/foreword inspect {OUT / tenant.name}", soft_wrap=True)
    both = " ".join(f"--prefix {OUT / tenant.name}" for tenant in TENANTS)
    line = "My tent arrived with a hole in it. Order A-7731."
    console.print(f'  .venv/bin/foreword generate --base demo {both} "{line}"', soft_wrap=True)


def _trained(base: foreword.BaseModel, tenant: Tenant) -> foreword.Artifact:
    out = OUT / tenant.name
    if out.exists():
        console.print(f"  using {out}; delete it to train again", soft_wrap=True)
        return foreword.open_artifact(out)
    folder = HERE / tenant.name
    recipe = load_settings(foreword.Recipe, folder / "recipe.yaml")
    dataset = foreword.load_dataset(folder / "train.jsonl", recipe.data, seed=recipe.seed)
    with Bar() as bar:
        result = foreword.train(recipe, base, dataset, out, progress=bar.show)
    console.print(f"  artifact {out} ({result.artifact.digest.short})", soft_wrap=True)
    console.print(f"  report   {out / 'report.html'}", soft_wrap=True)
    return result.artifact


def _compare(base: foreword.BaseModel, tenant: Tenant, artifact: foreword.Artifact) -> None:
    """Held-out inputs, answered by the frozen model and by the prefix."""
    rows = [r.values for r in read_rows(HERE / tenant.name / "heldout.jsonl") if r.values]
    inputs, targets = [r["input"] for r in rows], [r["target"] for r in rows]
    prefix = foreword.load_prefix(base, artifact)
    asked = foreword.PromptFormat("chat", "")
    requests = [
        foreword.GenerationRequest({"input": tenant.instruction.format(input=text)}, prompt=asked)
        for text in inputs
    ] + [foreword.GenerationRequest({"input": text}, prefix) for text in inputs]
    answers = [c.text for c in foreword.generate(base, requests, max_new_tokens=NEW_TOKENS)]
    frozen, ours = answers[: len(rows)], answers[len(rows) :]
    table = Table(show_lines=True)
    for title in ("held-out input", "frozen model, asked in words", f"with prefix {tenant.name}"):
        table.add_column(title, ratio=1)
    for cells in list(zip(inputs, frozen, ours, strict=True))[:SHOWN]:
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    console.print(table)
    for name, score in tenant.scores.items():
        before, after = score(inputs, frozen, targets), score(inputs, ours, targets)
        console.print(f"  {name}: {before:.1f} frozen, [bold]{after:.1f}[/bold] with the prefix")


if __name__ == "__main__":
    main()
