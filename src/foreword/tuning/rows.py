"""One row becomes one example, or a reason why it cannot be used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from transformers import PreTrainedTokenizerBase

from foreword.artifact import PromptFormat
from foreword.errors import ConfigError, DataError
from foreword.prefix.prompts import places, render, require_places
from foreword.tuning.formats import RawRow
from foreword.tuning.recipe import DataSettings

_REFERENCES = "references"


@dataclass(frozen=True)
class Example:
    """One row: what the model reads and what it should answer."""

    prompt: str
    target: str
    source: str
    """`file:line`."""
    columns: Mapping[str, str]
    """The row's columns as text, `input` among them."""
    references: tuple[str, ...] = ()
    """All answers that count as right, where the row's column `references` lists them."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    source: str
    reason: str


def to_examples(
    rows: Iterable[RawRow],
    settings: DataSettings,
    prompt: PromptFormat,
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[list[Example], list[BadRow]]:
    """Sort rows into examples and bad rows.

    Raises:
        DataError: a column of `settings` is in no row (code `data.missing_column`).
        ConfigError: a place of the template is in no row, or shows the answer (codes `prompt.*`).
    """
    found = list(rows)
    _require_columns(found, settings, prompt)
    good: list[Example] = []
    bad: list[BadRow] = []
    for row in found:
        problem = row.problem or _problem(row.values or {}, settings, prompt)
        if problem is not None or row.values is None:
            bad.append(BadRow(row.source, problem or "not a row"))
        else:
            good.append(_example(row.source, row.values, settings, prompt, tokenizer))
    return good, bad


def _example(
    source: str,
    values: Mapping[str, Any],
    settings: DataSettings,
    prompt: PromptFormat,
    tokenizer: PreTrainedTokenizerBase | None,
) -> Example:
    columns = {
        key: str(value) for key, value in values.items() if isinstance(value, str | int | float)
    }
    columns["input"] = columns[settings.input]
    listed = values.get(_REFERENCES)
    return Example(
        render(prompt, columns, tokenizer),
        str(values[settings.target]),
        source,
        columns,
        tuple(listed) if isinstance(listed, list) else (),
    )


def _require_columns(rows: Sequence[RawRow], settings: DataSettings, prompt: PromptFormat) -> None:
    """Refuse names that fit no row at all; a column that only some rows lack makes those bad."""
    known = {name: None for row in rows for name in row.values or ()}
    if not known:
        return
    for key, column in (("data.input", settings.input), ("data.target", settings.target)):
        if column not in known:
            near = get_close_matches(column, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"name it with {key}"
            raise DataError(
                f"there is no column {column!r} in the rows from {rows[0].source} on; found "
                f"{', '.join(map(repr, known))}; {hint}",
                code="data.missing_column",
            )
    require_places(prompt, {**known, "input": None})
    if settings.target in _own_places(prompt):
        raise ConfigError(
            f"the template has the place {{{settings.target}}}, which is the answer to be learned; "
            "take it out",
            code="prompt.target",
        )


def _own_places(prompt: PromptFormat) -> list[str]:
    """The columns a template shows beside `{input}`, which stands for the input column."""
    return [place for place in places(prompt) if place != "input"]


def _problem(values: Mapping[str, Any], settings: DataSettings, prompt: PromptFormat) -> str | None:
    needed = (settings.input, settings.target)
    for column in (*needed, *_own_places(prompt)):
        fault = _fault(values.get(column))
        if fault is not None:
            return f"column {column!r} {fault}"
        if column in needed and not str(values[column]).strip():
            return f"column {column!r} is empty"
    listed = values.get(_REFERENCES)
    if isinstance(listed, list) and not all(isinstance(text, str) and text for text in listed):
        return f"column {_REFERENCES!r} should list texts, none of them empty"
    return None


def _fault(value: Any) -> str | None:
    """Why a value cannot stand in a text. Parquet and JSON write a missing number as NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "has no value"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return f"holds a {type(value).__name__}, expected text"
    if any("\ud800" <= letter <= "\udfff" for letter in str(value)):
        return "holds half a surrogate pair, which is no text"
    return None
