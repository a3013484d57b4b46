"""Encoder-decoders: static batches of transformers' `generate`, every row with its own prefix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from foreword.prefix.attach import attach
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import PrefixKV

BATCH_ROWS = 32
_GREEDY: Mapping[str, object] = {
    "do_sample": False, "temperature": None, "top_p": None, "top_k": None,
}  # fmt: skip


def generate(
    base: BaseModel,
    prompts: Sequence[Sequence[int]],
    prefixes: Sequence[PrefixKV | None],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[list[int]]:
    """New token ids of every prompt, in order, without end-of-sequence and padding."""
    torch.manual_seed(seed)
    answers: dict[int, list[int]] = {}
    # Rows of similar length share a batch, so little is spent on padding.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first in range(0, len(order), BATCH_ROWS):
        chosen = order[first : first + BATCH_ROWS]
        rows = _run(
            base, [prompts[i] for i in chosen], [prefixes[i] for i in chosen],
            max_new_tokens, temperature,
        )  # fmt: skip
        answers |= zip(chosen, rows, strict=True)
        progress(len(answers))
    return [answers[i] for i in range(len(prompts))]


@torch.no_grad()
def _run(
    base: BaseModel,
    prompts: Sequence[Sequence[int]],
    prefixes: Sequence[PrefixKV | None],
    max_new_tokens: int,
    temperature: float,
) -> list[list[int]]:
    end = base.required_tokenizer().eos_token_id
    pad = base.model.config.pad_token_id
    pad = pad if isinstance(pad, int) else (end or 0)
    ids, mask = _padded(prompts, pad)
    sampling = {"do_sample": True, "temperature": temperature} if temperature else _GREEDY
    with attach(base, prefixes):
        out = base.model.generate(
            input_ids=ids.to(base.device),
            attention_mask=mask.to(base.device),
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            eos_token_id=end,
            **sampling,
        )
    return [row[: row.index(end)] if end in row else row for row in out[:, 1:].tolist()]


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask `[row, longest]`; an encoder reads from the left edge."""
    longest = max(len(row) for row in rows)
    ids = [[*row, *[pad] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)
