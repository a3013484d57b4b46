"""Rows become examples: columns, prompt, held-out split, and a digest of exactly what is used."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from foreword.artifact import Digest, PromptFormat
from foreword.errors import DataError
from foreword.prefix.prompts import chosen_format, render
from foreword.tuning.formats import RawRow, read_rows
from foreword.tuning.recipe import DataSettings

_DOMAIN = b"foreword.dataset/1"
_SHOWN = 5


@dataclass(frozen=True)
class Example:
    """One row: what the model reads and what it should answer."""

    prompt: str
    target: str
    source: str
    """`file:line`."""
    columns: Mapping[str, str]
    """The row's columns as text, `input` among them."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    source: str
    reason: str


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
    """Rows that say exactly what an earlier row says."""


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
    good, bad = _examples(read_rows(data), settings, prompt, tokenizer)
    if settings.eval_path is not None:
        held_out, bad_held_out = _examples(
            read_rows(settings.eval_path), settings, prompt, tokenizer
        )
        bad += bad_held_out
        train = good[: settings.limit]
        _require_apart(train, held_out)
    _refuse_bad(bad, settings)
    if not good:
        raise DataError(
            f"there are no rows in {_name(data)}; nothing can be trained", code="data.empty"
        )
    if settings.eval_path is None:
        train, held_out = split(good[: settings.limit], settings.eval_fraction, seed)
    if not held_out:
        raise DataError(f"there are no rows in {settings.eval_path}", code="data.empty")
    return Dataset(
        tuple(train),
        tuple(held_out),
        digest([*train, *held_out], len(train)),
        tuple(bad),
        len(train) - len({(e.prompt, e.target) for e in train}),
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


def _examples(
    rows: Iterable[RawRow],
    settings: DataSettings,
    prompt: PromptFormat,
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[list[Example], list[BadRow]]:
    good: list[Example] = []
    bad: list[BadRow] = []
    columns_known = False
    for row in rows:
        values = row.values
        problem = row.problem
        if values is not None:
            if not columns_known:
                _require_columns(values, settings, row.source)
                columns_known = True
            problem = _problem(values, settings)
        if problem is not None or values is None:
            bad.append(BadRow(row.source, problem or "not a row"))
            continue
        columns = {
            k: v if isinstance(v, str) else str(v) for k, v in values.items() if v is not None
        }
        columns["input"] = columns[settings.input]
        text = render(prompt, columns, tokenizer)
        good.append(Example(text, columns[settings.target], row.source, columns))
    return good, bad


def _require_columns(values: Mapping[str, Any], settings: DataSettings, source: str) -> None:
    for key, column in (("data.input", settings.input), ("data.target", settings.target)):
        if column not in values:
            near = get_close_matches(column, list(values), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"name it with {key}"
            raise DataError(
                f"{source} has no column {column!r}; found {', '.join(map(repr, values))}; {hint}",
                code="data.missing_column",
            )


def _problem(values: Mapping[str, Any], settings: DataSettings) -> str | None:
    for column in (settings.input, settings.target):
        value = values.get(column)
        if value is None:
            return f"no value in column {column!r}"
        if not isinstance(value, str | int | float):
            return f"column {column!r} holds a {type(value).__name__}, expected text"
        if not str(value).strip():
            return f"column {column!r} is empty"
        if any("\ud800" <= letter <= "\udfff" for letter in str(value)):
            return f"column {column!r} holds half a surrogate pair, which is no text"
    return None


def _refuse_bad(bad: Sequence[BadRow], settings: DataSettings) -> None:
    if bad and settings.bad_rows == "refuse":
        shown = "; ".join(f"{row.source}: {row.reason}" for row in bad[:_SHOWN])
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise DataError(
            f"{len(bad)} bad row{'s' if len(bad) > 1 else ''}: {shown}{more}. Mend them, or leave "
            "them out with data.bad_rows=skip",
            code="data.bad_rows",
        )


def _require_apart(train: Sequence[Example], held_out: Sequence[Example]) -> None:
    known = {(example.prompt, example.target) for example in train}
    both = [e for e in held_out if (e.prompt, e.target) in known]
    if both:
        raise DataError(
            f"{len(both)} held-out rows are training rows too (first {both[0].source}); a held-out "
            "loss over them would mean nothing",
            code="data.leak",
        )


def _name(data: Any) -> str:
    return str(data) if isinstance(data, str | Path) else "the dataset"
