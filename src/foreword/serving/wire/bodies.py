"""From the bytes of a body to a JSON object, at a cost that is known before anything is built.

Refused: a key twice, NaN and Infinity, numbers beyond a double or of more than 32 characters, half of
a surrogate pair, more than 32 levels, and more values than any request needs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from foreword.artifact.canonical import refuse_constant, short_float, unique_keys
from foreword.errors import BadRequest
from foreword.serving.wire.limits import (
    MAX_BODY,
    MAX_DEPTH,
    MAX_FIELDS,
    MAX_NUMBER,
    MAX_OPENINGS,
    MAX_VALUES,
)  # fmt: skip


@dataclass(frozen=True)
class Caps:
    """How much JSON is read."""

    nbytes: int
    openings: int
    """Objects and lists."""
    commas: int
    """Outside texts."""
    fields: int = MAX_FIELDS
    """Of all objects together."""


CLIENT = Caps(MAX_BODY, MAX_OPENINGS, MAX_VALUES)
_BRACKETS = re.compile(r"[\[\]{}]")


def _short_int(text: str) -> int:
    """Of few digits: turning thousands of them into an integer is slow."""
    if len(text) > MAX_NUMBER:
        raise ValueError(f"a number has more than {MAX_NUMBER} characters")
    return int(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=unique_keys,
    parse_constant=refuse_constant,
    parse_float=short_float,
    parse_int=_short_int,
)


def read_object(data: bytes, caps: Caps = CLIENT) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        BadRequest: it is none (`request.json`), more than anybody needs (`request.too_large`), or
            nested too deeply (`request.too_deep`).
    """
    if len(data) > caps.nbytes:
        _too_large(f"at most {caps.nbytes} bytes", len(data))
    try:
        text = data.decode("utf-8")
        _check_cost(_outside_texts(text), caps)
        value = _DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()  # refuses half of a pair
    except (ValueError, RecursionError) as e:
        reason = "half of a surrogate pair" if isinstance(e, UnicodeEncodeError) else str(e)[:200]
        raise BadRequest(
            f"expected a JSON object in UTF-8, got something else ({reason!r}); send one",
            code="request.json",
        ) from e
    if not isinstance(value, dict):
        raise BadRequest(
            "expected a JSON object, got another kind of value; send one", code="request.json"
        )
    return value


def _outside_texts(text: str) -> str:
    """What stands outside the quotes, up to the first byte that is no JSON."""
    return "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])


def _check_cost(structure: str, caps: Caps) -> None:
    openings, commas = structure.count("{") + structure.count("["), structure.count(",")
    if openings > caps.openings:
        _too_large(f"at most {caps.openings} objects and lists", openings)
    if commas > caps.commas:
        _too_large(f"at most {caps.commas} commas", commas)
    if (fields := structure.count(":")) > caps.fields:
        _too_large(f"at most {caps.fields} fields", fields)
    depth = 0
    for found in _BRACKETS.finditer(structure):
        depth += 1 if found.group() in "[{" else -1
        if depth < 0:
            raise ValueError("a bracket is closed that was not opened")
        if depth > MAX_DEPTH:
            raise BadRequest(
                f"expected at most {MAX_DEPTH} levels of JSON, got more; send a flatter body",
                code="request.too_deep",
            )


def _too_large(expected: str, got: int) -> NoReturn:
    raise BadRequest(
        f"expected a body of {expected}, got {got}; send less", code="request.too_large"
    )
