"""Generate answers with one prefix, several, or none, in one batch, on transformers' `generate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foreword.artifact import Digest, PromptFormat
from foreword.errors import PromptTooLong, UnsupportedModel
from foreword.prefix.attach import attach
from foreword.prefix.base_model import BaseModel
from foreword.prefix.loading import LoadedPrefix
from foreword.prefix.prompts import PLAIN, encode_prompt, render

BATCH_ROWS = 32


@dataclass(frozen=True)
class GenerationRequest:
    """One input: its columns, the prefix that answers (None: the bare model) and how it is put.

    Without a prefix the input is given as it is, unless `prompt` says otherwise; with one, the
    prompt format the prefix was trained with is used.
    """

    columns: Mapping[str, str]
    prefix: LoadedPrefix | None = None
    prompt: PromptFormat | None = None

    @property
    def format(self) -> PromptFormat:
        if self.prompt is not None:
            return self.prompt
        return self.prefix.prompt if self.prefix else PLAIN


@dataclass(frozen=True)
class Completion:
    """One answer, and exactly which prefix was attached."""

    text: str
    token_ids: tuple[int, ...]
    prefix: str | None
    """Name and version, or None for the bare model."""
    digest: Digest | None


def generate(
    base: BaseModel,
    requests: Sequence[GenerationRequest],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Completion]:
    """Answers in the order of `requests`; rows with different prefixes share batches.

    Greedy with temperature 0. A sampled answer depends on `seed` and on the other requests of the
    call. `progress` is told how many requests are done.

    Raises:
        PromptTooLong: prompt, prefix and new tokens do not fit the model's context.
        UnsupportedModel: the base is an encoder; it writes no text.
    """
    if base.kind == "masked":
        raise UnsupportedModel(
            f"{base.ref.architecture} is an encoder without a decoder; it writes no text",
            code="model.encoder_only",
        )
    prompts = [_encode(base, r, i, max_new_tokens) for i, r in enumerate(requests)]
    torch.manual_seed(seed)
    answers: dict[int, Completion] = {}
    # Rows of similar length share a batch, so little is spent on padding.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for first in range(0, len(order), BATCH_ROWS):
        chosen = order[first : first + BATCH_ROWS]
        rows = _run(
            base,
            [prompts[i] for i in chosen],
            [requests[i].prefix for i in chosen],
            max_new_tokens,
            temperature,
        )
        answers |= {
            i: _completion(base, ids, requests[i].prefix)
            for i, ids in zip(chosen, rows, strict=True)
        }
        progress(len(answers))
    return [answers[i] for i in range(len(requests))]


def _encode(base: BaseModel, request: GenerationRequest, index: int, new: int) -> list[int]:
    tokenizer = base.required_tokenizer()
    text = render(request.format, request.columns, tokenizer)
    ids = encode_prompt(tokenizer, text, request.format, base.kind)
    virtual = request.prefix.kv.length if request.prefix else 0
    read, said = (len(ids), new) if base.kind == "causal" else (max(len(ids), new), 0)
    if base.context is not None and read + said + virtual > base.context:
        raise PromptTooLong(
            f"input {index + 1}: {len(ids)} prompt tokens, {virtual} virtual tokens and {new} new "
            f"ones do not fit the context of {base.context}; shorten the input or lower "
            "--max-new-tokens"
        )
    return ids


@torch.no_grad()
def _run(
    base: BaseModel,
    prompts: Sequence[Sequence[int]],
    prefixes: Sequence[LoadedPrefix | None],
    max_new_tokens: int,
    temperature: float,
) -> list[list[int]]:
    """One batch; new token ids per row, without end-of-sequence and padding."""
    end = base.required_tokenizer().eos_token_id
    pad = base.model.config.pad_token_id
    pad = pad if isinstance(pad, int) else (end or 0)
    ids, mask = _padded(prompts, pad, left=base.kind == "causal")
    sampling = {"do_sample": True, "temperature": temperature} if temperature else _GREEDY
    with attach(base, [p.kv if p else None for p in prefixes]):
        out = base.model.generate(
            input_ids=ids.to(base.device),
            attention_mask=mask.to(base.device),
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            eos_token_id=end,
            **sampling,
        )
    first = ids.shape[1] if base.kind == "causal" else 1
    return [_until(row, end) for row in out[:, first:].tolist()]


_GREEDY: Mapping[str, object] = {
    "do_sample": False,
    "temperature": None,
    "top_p": None,
    "top_k": None,
}


def _padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool) -> tuple[Tensor, Tensor]:
    """Token ids and mask `[row, longest]`: decoders continue at the right edge, encoders read
    from the left one."""
    longest = max(len(row) for row in rows)
    ids, mask = [], []
    for row in rows:
        fill = longest - len(row)
        before, after = (fill, 0) if left else (0, fill)
        ids.append([pad] * before + list(row) + [pad] * after)
        mask.append([0] * before + [1] * len(row) + [0] * after)
    return torch.tensor(ids), torch.tensor(mask)


def _until(ids: list[int], end: int | None) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def _completion(base: BaseModel, ids: list[int], prefix: LoadedPrefix | None) -> Completion:
    text = base.required_tokenizer().decode(ids, skip_special_tokens=True).strip()
    if prefix is None:
        return Completion(text, tuple(ids), None, None)
    return Completion(text, tuple(ids), f"{prefix.name}@{prefix.version}", prefix.digest)
