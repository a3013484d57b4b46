"""Server-sent events (WHATWG HTML, section 9.2), as OpenAI's clients read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DONE = b"data: [DONE]\n\n"
# One for all: `json.dumps` would make a new one for every token.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def event(data: Mapping[str, Any]) -> bytes:
    """One event. JSON escapes every line break, so the data is one line."""
    return b"data: " + to_json(data) + b"\n\n"


def error(body: Mapping[str, Any]) -> bytes:
    """The last event of a stream that failed; `body` as `problems.problem` gives it."""
    return b"event: error\n" + event(body)


def to_json(value: Mapping[str, Any]) -> bytes:
    """Compact JSON in UTF-8; half of a surrogate pair becomes an escape instead of a wrong byte."""
    return _ENCODER.encode(value).encode(errors="backslashreplace")
