"""Quality on E2E with 500 rows: the frozen model, PEFT prefix tuning, PEFT LoRA r=8, and ours.

Same rows, same number of steps of 8 rows, same prompt (the input and a line break), greedy answers
of at most 60 tokens, BLEU by sacrebleu (lowercase) against all references, held-out loss on the
first reference of the same dev inputs. Ours runs the default recipe through `foreword.train`.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
import peers
import sacrebleu
import torch
from torch.nn.utils import clip_grad_norm_

from foreword.artifact import PromptFormat
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import demo_base
from foreword.prefix.loading import LoadedPrefix, load_prefix
from foreword.serving.generation import GenerationRequest, generate
from foreword.tuning.data import Dataset, Example, load_dataset
from foreword.tuning.objective import mean_loss
from foreword.tuning.recipe import DataSettings, PrefixSettings, Recipe, TrainSettings
from foreword.tuning.tokens import TokenRow, row_order, tokenize
from foreword.tuning.train import train

ROWS, LENGTH, BATCH, NEW_TOKENS = 500, 16, 8, 60
PEER_SEEDS = 1
"""Seeds for each peer; ours runs three, and the spread is in the raw figures."""
PROMPT = PromptFormat("template", "{input}\n")
Row = dict[str, Any]


def bleu(answers: Sequence[str], rows: Sequence[Row]) -> float:
    most = max(len(row["references"]) for row in rows)
    columns = [
        [row["references"][i] if i < len(row["references"]) else None for row in rows]
        for i in range(most)
    ]
    return float(sacrebleu.corpus_bleu(list(answers), columns, lowercase=True).score)


def our_answers(base: BaseModel, prefix: LoadedPrefix | None, rows: Sequence[Row]) -> list[str]:
    requests = [GenerationRequest({"input": row["input"]}, prefix, PROMPT) for row in rows]
    return [c.text for c in generate(base, requests, max_new_tokens=NEW_TOKENS)]


@torch.no_grad()
def peer_answers(model: Any, base: BaseModel, rows: Sequence[Row]) -> list[str]:
    """PEFT's own generate, in batches of equal prompt length so that nothing is padded."""
    tokenizer = base.required_tokenizer()
    prompts = [tokenizer(row["input"] + "\n")["input_ids"] for row in rows]
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    answers: dict[int, str] = {}
    for length, indices in by_length.items():
        ids = torch.tensor([prompts[i] for i in indices])
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS,
            do_sample=False, pad_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        for i, row in zip(indices, out, strict=True):
            new = row[-(out.shape[1] - length) :]
            answers[i] = tokenizer.decode(new, skip_special_tokens=True).strip()
    return [answers[i] for i in range(len(rows))]


def trained_peer(
    method: str, base: BaseModel, directory: Path, rows: Sequence[TokenRow], steps: int, seed: int
) -> Any:
    """AdamW, 10 warm-up steps, then linear to zero, clip 1.0: as in the PEFT examples."""
    pad = base.required_tokenizer().eos_token_id
    model = peers.build(method, directory, LENGTH, seed)
    parameters, peak = peers.trainable(model), peers.LEARNING_RATE[method]
    optimizer = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.0)
    for step in range(steps):
        rate = peak * min(1.0, (step + 1) / 10) * (1.0 - step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = [rows[i] for i in row_order(len(rows), BATCH, seed, step)]
        optimizer.zero_grad()
        model(**peers.collate(chosen, pad)).loss.backward()
        clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return model.eval()


def run_peer(
    method: str,
    base: BaseModel,
    directory: Path,
    train_rows: Sequence[TokenRow],
    dev_rows: Sequence[TokenRow],
    dev: Sequence[Row],
    steps: int,
    seed: int,
) -> dict[str, Any]:
    pad = base.required_tokenizer().eos_token_id
    began = time.perf_counter()
    model = trained_peer(method, base, directory, train_rows, steps, seed)
    seconds = time.perf_counter() - began
    answers = peer_answers(model, base, dev)
    return {
        "method": method, "seed": seed, "lr": peers.LEARNING_RATE[method],
        "trained_values": sum(p.numel() for p in peers.trainable(model)),
        "held_out_loss": peers.mean_loss(model, dev_rows, pad),
        "bleu": bleu(answers, dev), "seconds": seconds, "answers": answers[:5],
    }  # fmt: skip


def run_ours(
    base: BaseModel,
    dataset: Dataset,
    dev_rows: Sequence[TokenRow],
    dev: Sequence[Row],
    steps: int,
    seed: int,
) -> dict[str, Any]:
    recipe = Recipe(
        seed=seed, prefix=PrefixSettings(length=LENGTH), train=TrainSettings(steps=steps)
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        result = train(recipe, base, dataset, Path(scratch) / "prefix")
    seconds = time.perf_counter() - began
    prefix = load_prefix(base, result.artifact)
    answers = our_answers(base, prefix, dev)
    return {
        "method": "foreword", "seed": seed,
        "trained_values": prefix.kv.nbytes // 4,
        "held_out_loss": mean_loss(base, prefix.kv, dev_rows, 4096),
        "bleu": bleu(answers, dev), "seconds": seconds, "answers": answers[:5],
    }  # fmt: skip


def measure(quick: bool) -> harness.Result:
    steps, inputs, seeds = (60, 60, [0]) if quick else (180, 300, [0, 1, 2])
    directory = demo_base(print)
    base = load_base(directory)
    dev = harness.read_rows("e2e/dev.jsonl")
    random.Random(0).shuffle(dev)
    dev = dev[:inputs]
    held_out = tuple(
        Example(f"{row['input']}\n", row["references"][0], f"dev {i}", {})
        for i, row in enumerate(dev)
    )
    # All 500 rows are trained on, by every method. Ours keeps the parameters with the lowest loss on
    # 64 rows that are neither trained on nor judged.
    scratch = DataSettings(limit=ROWS, bad_rows="refuse")
    rows = load_dataset(harness.DATA / "e2e" / "train.jsonl", scratch, seed=0)
    train_examples = rows.train + rows.held_out
    spare = tuple(
        Example(f"{row['input']}\n", row["references"][0], f"test {i}", {"input": row["input"]})
        for i, row in enumerate(harness.read_rows("e2e/test.jsonl", 64))
    )
    dataset = Dataset(train_examples, spare, rows.digest)
    train_rows = tokenize(base, dataset.train, PROMPT, LENGTH)
    dev_rows = tokenize(base, held_out, PROMPT, LENGTH)
    frozen = {
        "method": "frozen", "held_out_loss": mean_loss(base, None, dev_rows, 4096),
        "bleu": bleu(our_answers(base, None, dev), dev),
    }  # fmt: skip
    runs: list[dict[str, Any]] = []
    for seed in seeds:
        runs.append(_said(run_ours(base, dataset, dev_rows, dev, steps, seed)))
        for method in peers.METHODS if seed < PEER_SEEDS else ():
            runs.append(
                _said(run_peer(method, base, directory, train_rows, dev_rows, dev, steps, seed))
            )
    return harness.Result(_claims(runs), {"frozen": frozen, "runs": runs, "dev_inputs": inputs})


def _said(run: dict[str, Any]) -> dict[str, Any]:
    print(f"{run['method']} seed {run['seed']}: loss {run['held_out_loss']:.4f}, "
          f"BLEU {run['bleu']:.2f}, {run['seconds']:.0f} s", flush=True)  # fmt: skip
    return run


def _claims(runs: Sequence[dict[str, Any]]) -> list[harness.Claim]:
    def mean(method: str, figure: str) -> float:
        return statistics.mean(float(run[figure]) for run in runs if run["method"] == method)

    def gain(method: str, figure: str) -> float:
        return mean("foreword", figure) - mean(method, figure)

    return [
        harness.Claim("BLEU above PEFT's random start", gain("peft_prefix", "bleu"), 5.0, "higher", "BLEU"),
        harness.Claim("BLEU above LoRA r=8", gain("peft_lora_r8", "bleu"), 0.0, "higher", "BLEU"),
        harness.Claim(
            "held-out loss below PEFT's random start",
            -gain("peft_prefix", "held_out_loss"), 0.0, "higher", "nats",
        ),
        harness.Claim(
            "held-out loss below LoRA r=8", -gain("peft_lora_r8", "held_out_loss"), 0.0, "higher", "nats"
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    harness.main(measure)
