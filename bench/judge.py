"""Judging speed: all rows of three variants in one pass of the engine, beside loops over `generate`.

The variants are SmolLM2-135M alone and with two prefixes (restaurant, hotel) trained here for a few steps.
Every variant answers the same rows of rnnlg with the same prompt, greedy. The loops take one answer at a
time: over our own `generate`, and over transformers' `generate` with the same prefixes in PEFT. They answer
a sample of the rows, since all of them would take hours; sides take turns, and a ratio is the median over
the rounds of answers per second.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import harness
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from foreword.artifact import Artifact
from foreword.artifact.peft import write_peft
from foreword.evaluation.golden import GoldenRow, GoldenSet, Header
from foreword.evaluation.metrics.suite import suite
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.embedded import ROUTE, embedded
from foreword.evaluation.runs.replay import Replay, replay
from foreword.evaluation.runs.variant import Variant
from foreword.evaluation.scorecards.evaluation import evaluate
from foreword.evaluation.scorecards.scorecard import build
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import demo_base
from foreword.prefix.loading import LoadedPrefix, load_prefix
from foreword.prefix.prompts import DEFAULT, encode_prompt, render
from foreword.serving.generation import GenerationRequest, generate
from foreword.tuning.data import load_dataset
from foreword.tuning.recipe import DataSettings, PrefixSettings, Recipe, TrainSettings
from foreword.tuning.train import train

DOMAINS = ("restaurant", "hotel")
NEW_TOKENS = 40
LENGTH = 16
ONE_PASS, OWN_LOOP, PEER_LOOP = "one pass", "loop over generate", "loop over generate, PEFT"
Texts = dict[tuple[str, str], str]
"""Answers by variant's name and row id."""


@dataclass(frozen=True)
class Size:
    rows: int
    sample: int
    """Rows that the loops answer."""
    rounds: int
    steps: int
    """Of training each prefix."""


FULL, QUICK = Size(1_000, 12, 3, 60), Size(24, 2, 2, 8)


def golden_set(most: int) -> GoldenSet:
    """Different inputs of both domains in turn."""
    found: dict[str, GoldenRow] = {}
    lists = [
        [(domain, row) for part in ("test", "dev")
         for row in harness.read_rows(f"rnnlg/{domain}/{part}.jsonl")]
        for domain in DOMAINS
    ]  # fmt: skip
    for pair in zip(*lists, strict=False):
        for domain, row in pair:
            if row["input"] not in found and len(found) < most:
                found[row["input"]] = GoldenRow(
                    id=f"{domain}-{len(found)}", cohort=domain, specialty="any", language="en",
                    columns={"input": row["input"]}, references=tuple(row["references"]),
                )  # fmt: skip
    return GoldenSet(Header("bench/rnnlg", "1.0.0", "any"), tuple(found.values()))


def trained(base: BaseModel, domain: str, steps: int, out: Path) -> Artifact:
    file = harness.DATA / "rnnlg" / domain / "train.jsonl"
    dataset = load_dataset(file, DataSettings(limit=400), seed=0)
    recipe = Recipe(
        name=domain, prefix=PrefixSettings(length=LENGTH),
        train=TrainSettings(steps=steps, eval_every=steps),
    )  # fmt: skip
    return train(recipe, base, dataset, out).artifact


class Peer:
    """transformers with the same prefixes as PEFT adapters, answering one input at a time."""

    def __init__(self, base: BaseModel, directory: Path, adapters: dict[str, Path]) -> None:
        self._base = base
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        (first, path), *others = adapters.items()
        self._model: Any = PeftModel.from_pretrained(model, path, adapter_name=first).eval()
        for name, each in others:
            self._model.load_adapter(each, adapter_name=name)

    def answer(self, variant: str, row: GoldenRow) -> str:
        tokenizer = self._base.required_tokenizer()
        text = render(DEFAULT, row.columns, tokenizer)
        ids = torch.tensor([encode_prompt(tokenizer, text, DEFAULT, "causal")])
        asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": False,
                 "max_new_tokens": NEW_TOKENS, "pad_token_id": tokenizer.eos_token_id}  # fmt: skip
        with torch.inference_mode():
            if variant == "base":
                with self._model.disable_adapter():
                    said = self._model.generate(**asked)
            else:
                self._model.set_adapter(variant)
                said = self._model.generate(**asked)
        return str(tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True)).strip()


class Sides:
    """The three ways to get answers; each gives texts and the seconds they took."""

    def __init__(self, base: BaseModel, directory: Path, golden: GoldenSet, size: Size) -> None:
        self.golden = golden
        self.sample = golden.rows[:: max(1, len(golden.rows) // size.sample)][: size.sample]
        self._base = base
        with tempfile.TemporaryDirectory() as scratch:
            made = {d: trained(base, d, size.steps, Path(scratch) / d) for d in DOMAINS}
            self._prefixes = {name: load_prefix(base, artifact) for name, artifact in made.items()}
            adapters = {
                name: write_peft(a, Path(scratch) / f"{name}-peft") for name, a in made.items()
            }
            self._peer = Peer(base, directory, adapters)
        self.last: Replay | None = None
        self._variants = [
            Variant(name, self._digest(name), ROUTE, base.ref.id, DEFAULT)
            for name in ("base", *self._prefixes)
        ]

    def one_pass(self) -> tuple[Texts, float]:
        prefixes = {prefix.digest: prefix for prefix in self._prefixes.values()}
        run = embedded(self._base, prefixes)
        self.last = replay(self._variants, self.golden, run, Decoding(NEW_TOKENS))
        texts = {
            (name, row): answer.text
            for name, answers in self.last.answers.items()
            for row, answer in answers.items()
        }
        return texts, self.last.seconds

    def own_loop(self) -> tuple[Texts, float]:
        def answer(name: str, row: GoldenRow) -> str:
            request = GenerationRequest(row.columns, self._prefixes.get(name), DEFAULT)
            return generate(self._base, [request], max_new_tokens=NEW_TOKENS)[0].text

        return self._loop(answer)

    def peer_loop(self) -> tuple[Texts, float]:
        return self._loop(self._peer.answer)

    def _loop(self, answer: Callable[[str, GoldenRow], str]) -> tuple[Texts, float]:
        began = time.perf_counter()
        # One variant after the other: the order in which adapters are switched least often.
        texts = {
            (variant.name, row.id): answer(variant.name, row)
            for variant in self._variants
            for row in self.sample
        }
        return texts, time.perf_counter() - began

    def _digest(self, name: str) -> Any:
        prefix: LoadedPrefix | None = self._prefixes.get(name)
        return prefix.digest if prefix else None


def measure(quick: bool) -> harness.Result:
    size = QUICK if quick else FULL
    directory = demo_base(print)
    base = load_base(directory)
    sides = Sides(base, directory, golden_set(size.rows), size)
    ways = {ONE_PASS: sides.one_pass, OWN_LOOP: sides.own_loop, PEER_LOOP: sides.peer_loop}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    texts: dict[str, Texts] = {}
    for number in range(size.rounds):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            texts[name], seconds = ways[name]()
            rates[name].append(len(texts[name]) / seconds)
            print(f"round {number + 1}: {name} {rates[name][-1]:.2f} answers/s", flush=True)
    return harness.Result(claims(rates), {
        "rows": len(sides.golden.rows), "variants": 3, "rows_of_the_loops": len(sides.sample),
        "new_tokens": NEW_TOKENS, "answers_per_second": rates, "same_text": same(texts),
        "after_answering": judging(sides.last),
    })  # fmt: skip


def claims(rates: dict[str, list[float]]) -> list[harness.Claim]:
    return [
        harness.Claim(
            f"{ONE_PASS} against a {name}", harness.median_ratio(rates[ONE_PASS], rates[name]), 5.0,
            "higher", "x",
        )
        for name in (OWN_LOOP, PEER_LOOP)
    ]  # fmt: skip


def same(texts: dict[str, Texts]) -> dict[str, float]:
    """Share of a loop's answers that are word for word those of the one pass."""
    return {
        name: statistics.fmean(text == texts[ONE_PASS][key] for key, text in texts[name].items())
        for name in (OWN_LOOP, PEER_LOOP)
    }


def judging(done: Replay | None) -> dict[str, float]:
    """Seconds of what comes after the answers: all metrics, and the scorecard's intervals."""
    if done is None:
        return {}
    moments: Sequence[float] = [time.perf_counter()]
    found = evaluate(done, suite())
    moments = [*moments, time.perf_counter()]
    build(found, datetime.now(UTC))
    moments = [*moments, time.perf_counter()]
    return {
        "metrics_seconds": moments[1] - moments[0],
        "scorecard_seconds": moments[2] - moments[1],
    }


if __name__ == "__main__":
    harness.main(measure)
