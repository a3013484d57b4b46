"""Server-sent events (WHATWG HTML, section 9.2), as OpenAI's clients read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pydantic_core

DONE = b"data: [DONE]\n\n"


def event(data: Mapping[str, Any]) -> bytes:
    """One event. JSON escapes every line break, so the data is one line."""
    return b"data: " + to_json(data) + b"\n\n"


def error(body: Mapping[str, Any]) -> bytes:
    """The last event of a stream that failed; `body` as `problems.problem` gives it."""
    return b"event: error\n" + event(body)


def to_json(value: Mapping[str, Any]) -> bytes:
    """Compact JSON in UTF-8; half of a surrogate pair becomes an escape instead of a wrong byte.

    What JSON has no number for is null.
    """
    try:
        # Faster than Python's own, and a stream pays it for every token.
        return pydantic_core.to_json(value, inf_nan_mode="null")
    except pydantic_core.PydanticSerializationError:  # half of a surrogate pair
        whole = pydantic_core.to_jsonable_python(value, inf_nan_mode="null")
        return json.dumps(whole, separators=(",", ":")).encode()
