"""Quality on the two example tenants of `make demo`: PEFT prefix tuning as it starts, and ours.

Each tenant's own recipe and training rows, the same number of steps of 8 rows, held-out loss on the rows
of `heldout.jsonl`, which neither side trains on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import harness
import peers
from first_prefix import LENGTH, PROMPT, trained_peer

from foreword.config import load_settings
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import demo_base
from foreword.tuning.data import load_dataset
from foreword.tuning.objective import mean_loss
from foreword.tuning.recipe import DataSettings, Recipe
from foreword.tuning.schedule import make_schedule
from foreword.tuning.tokens import tokenize
from foreword.tuning.train import train

TENANTS = ("trails", "tickets")


def compare(base: BaseModel, directory: Path, tenant: str, steps: int | None) -> dict[str, Any]:
    """An example tenant of `make demo`: its own recipe, against PEFT prefix tuning as it starts."""
    folder = harness.ROOT / "examples" / tenant
    recipe = load_settings(Recipe, folder / "recipe.yaml")
    if steps is not None:
        short = recipe.train.model_copy(update={"steps": steps, "eval_every": steps})
        recipe = recipe.model_copy(update={"train": short})
    dataset = load_dataset(folder / "train.jsonl", recipe.data, seed=recipe.seed)
    held_out = load_dataset(folder / "heldout.jsonl", DataSettings(eval_fraction=0.01), seed=0)
    train_rows = tokenize(base, dataset.train, PROMPT, LENGTH)
    held_out_rows = tokenize(base, held_out.train + held_out.held_out, PROMPT, LENGTH)
    with tempfile.TemporaryDirectory() as scratch:
        ours = train(recipe, base, dataset, Path(scratch) / "prefix").prefix
    peer = trained_peer(
        "peft_prefix", base, directory, train_rows, make_schedule(recipe, len(train_rows)).steps,
        recipe.seed,
    )  # fmt: skip
    losses = {
        "frozen": mean_loss(base, None, held_out_rows, 4096),
        "foreword": mean_loss(base, ours, held_out_rows, 4096),
        "peft_prefix": peers.mean_loss(peer, held_out_rows, base.required_tokenizer().eos_token_id),
    }
    print(f"demo {tenant}: " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items()), flush=True)
    return {"tenant": tenant, "held_out_loss": losses}


def measure(quick: bool) -> harness.Result:
    directory = demo_base(print)
    base = load_base(directory)
    demo = [compare(base, directory, tenant, 30 if quick else None) for tenant in TENANTS]
    return harness.Result([_claim(each) for each in demo], {"tenants": demo})


def _claim(demo: dict[str, Any]) -> harness.Claim:
    losses = demo["held_out_loss"]
    return harness.Claim(
        f"held-out loss below PEFT's random start, {demo['tenant']}",
        losses["peft_prefix"] - losses["foreword"], 0.0, "higher", "nats",
    )  # fmt: skip


if __name__ == "__main__":
    harness.main(measure)
