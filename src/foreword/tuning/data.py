"""A dataset: which rows train, which are held out, and a digest of exactly what is used."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from foreword.artifact import Digest
from foreword.errors import DataError
from foreword.prefix.prompts import chosen_format
from foreword.tuning.formats import read_rows
from foreword.tuning.recipe import DataSettings
from foreword.tuning.rows import BadRow, Example, to_examples

__all__ = ["BadRow", "Dataset", "Example", "digest", "load_dataset", "split"]

_DOMAIN = b"foreword.dataset/1"
_SHOWN = 5


@dataclass(frozen=True)
class Dataset:
    """What a run trains on and what it is judged on."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    digest: Digest
    """Over prompts and targets, training rows then held-out rows, in order."""
    bad_rows: tuple[BadRow, ...] = ()
    """Rows that were left out because the policy says `skip`."""
    duplicates: int = 0
    """Training rows that say exactly what an earlier training row says."""
    shared_prompts: int = 0
    """Held-out rows of a `data.eval_path` whose prompt training has too, with another answer."""


def load_dataset(
    data: Any,
    settings: DataSettings,
    *,
    seed: int,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Dataset:
    """Read, check, limit and split a dataset.

    `data` is a path (JSONL, CSV, TSV, Parquet, a saved Hugging Face dataset), `hf:NAME[:split]`, a
    `datasets.Dataset` or rows in memory. `tokenizer` is needed for the template `chat`.

    Raises:
        DataError: nothing to train on, a missing column, or bad rows while the policy is `refuse`;
            the message names file and line.
    """
    prompt = chosen_format(settings.template, tokenizer)
    good, bad = to_examples(read_rows(data), settings, prompt, tokenizer)
    bad_held_out: list[BadRow] = []
    if settings.eval_path is not None:
        held_out, bad_held_out = to_examples(
            read_rows(settings.eval_path), settings, prompt, tokenizer
        )
        train = good[: settings.limit]
    _refuse_bad([*bad, *bad_held_out], settings)
    if not good:
        raise _nothing(_name(data), bad)
    if settings.eval_path is None:
        train, held_out = split(good[: settings.limit], settings.eval_fraction, seed)
    if not held_out:
        raise _nothing(str(settings.eval_path), bad_held_out)
    return Dataset(
        tuple(train),
        tuple(held_out),
        digest([*train, *held_out], len(train)),
        (*bad, *bad_held_out),
        duplicates=len(train) - len({(e.prompt, e.target) for e in train}),
        shared_prompts=_shared_prompts(train, held_out),
    )


def split(
    examples: Sequence[Example], fraction: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Hold out about `fraction` of the rows. Rows with the same prompt stay on one side.

    Which side depends only on `seed` and the order in which prompts first appear.
    """
    prompts = list(dict.fromkeys(example.prompt for example in examples))
    count = max(1, round(fraction * len(prompts)))
    if len(prompts) < 2 or count >= len(prompts):
        raise DataError(
            f"{len(prompts)} different inputs cannot be split into training and held-out rows "
            f"(data.eval_fraction {fraction:g}); give more rows, or a data.eval_path",
            code="data.too_few",
        )
    away = set(random.Random(seed).sample(prompts, count))
    train = [example for example in examples if example.prompt not in away]
    return train, [example for example in examples if example.prompt in away]


def digest(examples: Sequence[Example], train_count: int) -> Digest:
    """sha256 over length-prefixed prompts and targets, so that no two datasets look alike."""
    state = hashlib.sha256(_DOMAIN + train_count.to_bytes(8, "little"))
    for example in examples:
        for text in (example.prompt, example.target):
            data = text.encode("utf-8", "surrogatepass")
            state.update(len(data).to_bytes(8, "little") + data)
    return Digest(state.hexdigest())


def _refuse_bad(bad: Sequence[BadRow], settings: DataSettings) -> None:
    if bad and settings.bad_rows == "refuse":
        shown = "; ".join(f"{row.source}: {row.reason}" for row in bad[:_SHOWN])
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise DataError(
            f"{len(bad)} bad row{'s' if len(bad) > 1 else ''}: {shown}{more}. Mend them, or leave "
            "them out with data.bad_rows=skip",
            code="data.bad_rows",
        )


def _shared_prompts(train: Sequence[Example], held_out: Sequence[Example]) -> int:
    """Held-out rows with a prompt that training has too; with the same answer they are refused."""
    known = {(example.prompt, example.target) for example in train}
    both = [e for e in held_out if (e.prompt, e.target) in known]
    if both:
        raise DataError(
            f"{len(both)} held-out rows are training rows too (first {both[0].source}); a held-out "
            "loss over them would mean nothing",
            code="data.leak",
        )
    prompts = {prompt for prompt, _ in known}
    return sum(example.prompt in prompts for example in held_out)


def _nothing(name: str, bad: Sequence[BadRow]) -> DataError:
    if bad:
        return DataError(
            f"no row of {name} can be used: all {len(bad)} are bad (first {bad[0].source}: "
            f"{bad[0].reason})",
            code="data.empty",
        )
    return DataError(f"there are no rows in {name}; nothing can be trained", code="data.empty")


def _name(data: Any) -> str:
    return str(data) if isinstance(data, str | Path) else "the dataset"
