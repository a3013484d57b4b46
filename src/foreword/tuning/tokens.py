"""From rendered examples to token ids, and from rows to micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from foreword.artifact import PromptFormat
from foreword.errors import DataError
from foreword.prefix.base_model import BaseModel
from foreword.prefix.prompts import encode_prompt
from foreword.tuning.data import Example


@dataclass(frozen=True)
class TokenRow:
    """One example: what the model reads and what it should answer, ending with end-of-sequence."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


def tokenize(
    base: BaseModel, examples: Sequence[Example], prompt: PromptFormat, length: int
) -> list[TokenRow]:
    """Token ids of every example.

    Raises:
        DataError: a row does not fit the model's context together with `length` virtual tokens.
    """
    tokenizer = base.required_tokenizer()
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    rows = []
    for example in examples:
        ids = tokenizer(example.target, add_special_tokens=False)["input_ids"]
        row = TokenRow(
            tuple(encode_prompt(tokenizer, example.prompt, prompt, base.kind)), tuple(ids + end)
        )
        longest = len(row) if base.kind == "causal" else max(len(row.prompt), len(row.target))
        if base.context is not None and longest + length > base.context:
            raise DataError(
                f"{example.source}: {longest} tokens and {length} virtual ones do not fit the "
                f"context of {base.context}; shorten the row or the prefix",
                code="data.too_long",
            )
        rows.append(row)
    return rows


def row_order(count: int, batch: int, seed: int, step: int) -> list[int]:
    """Which rows step `step` trains on: each epoch is its own shuffle of all rows.

    A pure function of its arguments, so a resumed run sees the rows an uninterrupted one would.
    """
    chosen: list[int] = []
    position = step * batch
    while len(chosen) < batch:
        epoch, offset = divmod(position + len(chosen), count)
        generator = torch.Generator().manual_seed((seed << 20) + epoch)
        order = torch.randperm(count, generator=generator).tolist()
        chosen += order[offset : offset + batch - len(chosen)]
    return chosen


def micro_batches(rows: Sequence[TokenRow], limit: int) -> Iterator[list[TokenRow]]:
    """Split rows, in order, so that no part has more than `limit` tokens (a longer row is alone)."""
    part: list[TokenRow] = []
    size = 0
    for row in rows:
        if part and size + len(row) > limit:
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row)
    if part:
        yield part
