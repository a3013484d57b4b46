"""From the bytes of a body to a JSON object, at a cost that is known before anything is built.

Refused: a key twice, NaN and Infinity, numbers beyond a double or of more than 32 characters, half of
a surrogate pair, more than 32 levels, and more values than any request needs.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from foreword.artifact.canonical import refuse_constant, short_float, unique_keys
from foreword.errors import BadRequest
from foreword.serving.wire.limits import (
    MAX_BODY,
    MAX_DEPTH,
    MAX_NUMBER,
    MAX_OPENINGS,
    MAX_VALUES,
)  # fmt: skip

_BRACKETS = re.compile(r"[\[\]{}]")
_LONG_WORD = re.compile(rf"[-+.\w]{{{MAX_NUMBER + 1}}}")


def read_object(data: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        BadRequest: it is none (`request.json`), more than anybody needs (`request.too_large`), or
            nested too deeply (`request.too_deep`).
    """
    if len(data) > MAX_BODY:
        _too_large(f"at most {MAX_BODY} bytes", len(data))
    try:
        text = data.decode("utf-8")
        _check_cost(_outside_texts(text))
        value = json.loads(
            text,
            object_pairs_hook=unique_keys,
            parse_constant=refuse_constant,
            parse_float=short_float,
        )
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


def _check_cost(structure: str) -> None:
    openings = structure.count("{") + structure.count("[")
    if openings > MAX_OPENINGS:
        _too_large(f"at most {MAX_OPENINGS} objects and lists", openings)
    if structure.count(",") > MAX_VALUES:
        _too_large(f"at most {MAX_VALUES} commas", structure.count(","))
    # Checked as text: turning thousands of digits into an integer is slow on purpose-made input.
    if _LONG_WORD.search(structure):
        raise ValueError(f"a number has more than {MAX_NUMBER} characters")
    depth = 0
    for found in _BRACKETS.finditer(structure):
        depth += 1 if found.group() in "[{" else -1
        if depth > MAX_DEPTH:
            raise BadRequest(
                f"expected at most {MAX_DEPTH} levels of JSON, got more; send a flatter body",
                code="request.too_deep",
            )


def _too_large(expected: str, got: int) -> NoReturn:
    raise BadRequest(
        f"expected a body of {expected}, got {got}; send less", code="request.too_large"
    )
