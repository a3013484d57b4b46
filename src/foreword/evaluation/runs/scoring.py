"""What a base, with a prefix or without, thinks of texts it is given: sums of -ln p, no generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import TYPE_CHECKING

from foreword.errors import PromptTooLong, UnsupportedModel, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from foreword.prefix.base_model import BaseModel
    from foreword.prefix.kv import PrefixKV

_BATCH_TOKENS = 512
"""A batch has a logit for each asked token and each word of the vocabulary: 100 MB at 49,152 words."""

Row = tuple[Sequence[int], Sequence[int]]
"""Token ids that are given, and those whose probability is asked."""


def text_scorer(
    base: BaseModel, prefix: PrefixKV | None = None
) -> Callable[[Sequence[str]], list[tuple[float, int]]]:
    """For each text the sum of -ln p of its tokens and their number; the first token is given.

    Raises, when it is called:
        UnsupportedModel: the base is no decoder (`evaluation.no_decoder`).
        UsageError: a text has fewer than two tokens (`evaluation.short_text`).
        PromptTooLong: a text and the prefix do not fit the base's context.
    """

    def score(texts: Sequence[str]) -> list[tuple[float, int]]:
        encoded = [base.required_tokenizer()(text)["input_ids"] for text in texts]
        for text, ids in zip(texts, encoded, strict=True):
            if len(ids) < 2:
                raise UsageError(
                    f"expected texts of two tokens or more, got {text[:40]!r}",
                    code="evaluation.short_text",
                )
        sums = losses(base, [(ids[:1], ids[1:]) for ids in encoded], prefix)
        return [(total, len(ids) - 1) for total, ids in zip(sums, encoded, strict=True)]

    return score


def likelihoods(base: BaseModel, options: tuple[str, str] = ("Yes", "No")) -> Callable[
    [Sequence[str]], list[float]
]:  # fmt: skip
    """For each prompt, the probability of the first of two answers, given that it is one of them.

    A prompt is put by the base's chat template if it has one, else as it is with a line break. The first
    token of each option is looked at; they have to differ (`evaluation.options`).
    """
    from foreword.artifact import PromptFormat
    from foreword.prefix.prompts import encode_prompt, render

    tokenizer = base.required_tokenizer()
    how = PromptFormat("chat" if tokenizer.chat_template else "template", "{input}\n")
    firsts = [tokenizer(option, add_special_tokens=False)["input_ids"][0] for option in options]
    if firsts[0] == firsts[1]:
        raise UsageError(
            f"{options[0]!r} and {options[1]!r} begin with the same token; name other options",
            code="evaluation.options",
        )

    def likely(prompts: Sequence[str]) -> list[float]:
        texts = [render(how, {"input": prompt}, tokenizer) for prompt in prompts]
        rows = [(encode_prompt(tokenizer, text, how, base.kind), firsts[:1]) for text in texts]
        said = (logits[0, firsts].softmax(-1) for logits in _scored(base, rows, None))
        return [float(two[0]) for two in said]

    return likely


def losses(base: BaseModel, rows: Sequence[Row], prefix: PrefixKV | None = None) -> list[float]:
    """The sum of -ln p of each row's second part after its first, and after the prefix.

    Raises:
        UnsupportedModel: the base is no decoder (`evaluation.no_decoder`).
        PromptTooLong: a row and the prefix do not fit the base's context.
    """
    import torch
    from torch.nn import functional

    found = []
    for (_, asked), logits in zip(rows, _scored(base, rows, prefix), strict=True):
        wanted = torch.tensor(list(asked), device=logits.device)
        found.append(float(functional.cross_entropy(logits, wanted, reduction="sum")))
    return found


def _scored(base: BaseModel, rows: Sequence[Row], prefix: PrefixKV | None) -> Iterator[Tensor]:
    """For each row the logits `[asked, vocabulary]` from which its asked tokens are said."""
    if base.kind != "causal":
        raise UnsupportedModel(
            f"{base.ref.architecture} is no decoder; only a decoder gives a text a probability",
            code="evaluation.no_decoder",
        )
    virtual = prefix.length if prefix else 0
    for given, asked in rows:
        if base.context is not None and len(given) + len(asked) + virtual > base.context:
            raise PromptTooLong(
                f"a text of {len(given) + len(asked)} tokens and {virtual} virtual ones do not fit the "
                f"context of {base.context}; shorten it"
            )
    for part in _batches(rows):
        yield from _batch(base, part, prefix)


def _batches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    size = 0
    for row in rows:
        tokens = len(row[0]) + len(row[1])
        if part and size + tokens > _BATCH_TOKENS:
            yield part
            part, size = [], 0
        part.append(row)
        size += tokens
    if part:
        yield part


def _batch(base: BaseModel, rows: Sequence[Row], prefix: PrefixKV | None) -> Sequence[Tensor]:
    import torch

    from foreword.prefix.attach import attach
    from foreword.prefix.packing import Packing

    packing = Packing.of([len(given) + len(asked) for given, asked in rows], base.device)
    ids = [token for given, asked in rows for token in (*given, *asked)]
    keep = torch.tensor(_places(rows), device=base.device)
    arguments = {
        "input_ids": torch.tensor([ids], device=base.device),
        "position_ids": packing.positions(),
        "attention_mask": packing.placeholder_mask(),
        "use_cache": False,
    }
    with torch.inference_mode(), attach(base, prefix, packing=packing):
        if "logits_to_keep" in signature(base.model.forward).parameters:
            logits = base.model(**arguments, logits_to_keep=keep).logits[0]
        else:
            logits = base.model(**arguments).logits[0, keep]
    sizes = [len(asked) for _, asked in rows]
    return tuple(logits.float().split(sizes))


def _places(rows: Sequence[Row]) -> list[int]:
    """Where in the flat batch the tokens stand that predict the asked ones: each the one before."""
    found: list[int] = []
    start = 0
    for given, asked in rows:
        first = start + len(given) - 1
        found += range(first, first + len(asked))
        start += len(given) + len(asked)
    return found
