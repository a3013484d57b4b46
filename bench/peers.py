"""The other side of our comparisons: PEFT, used as its documentation shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from foreword.tuning.tokens import TokenRow

Method = str
METHODS: tuple[Method, ...] = ("peft_prefix", "peft_lora_r8")
LEARNING_RATE = {"peft_prefix": 1e-2, "peft_lora_r8": 3e-3}
"""LoRA at 3e-3 reached a lower held-out loss on these rows than at 1e-3 (1.308 against 1.382 in 180
steps); prefix tuning at the rate its first trial used."""


def build(method: Method, directory: Path, length: int, seed: int = 0) -> PeftModel:
    """SmolLM2 with an adapter: prefix tuning as PEFT starts it, or LoRA r=8 on q and v."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    if method == "peft_prefix":
        config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
    else:
        config = LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj"])
    return get_peft_model(model, config).train()


def collate(rows: Sequence[TokenRow], pad: int) -> dict[str, Tensor]:
    """A right-padded batch with labels on target tokens only."""
    longest = max(len(row) for row in rows)
    ids, mask, labels = [], [], []
    for row in rows:
        fill = longest - len(row)
        ids.append([*row.prompt, *row.target, *[pad] * fill])
        mask.append([1] * len(row) + [0] * fill)
        labels.append([-100] * len(row.prompt) + [*row.target] + [-100] * fill)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: torch.tensor(values) for name, values in batch.items()}


def trainable(model: PeftModel) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


@torch.no_grad()
def mean_loss(model: PeftModel, rows: Sequence[TokenRow], pad: int, batch: int = 24) -> float:
    """Mean negative log-likelihood per target token, as ours is measured."""
    total, tokens = 0.0, 0
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch]
        count = sum(len(row.target) for row in part)
        total += float(model(**collate(part, pad)).loss) * count
        tokens += count
    return total / tokens
