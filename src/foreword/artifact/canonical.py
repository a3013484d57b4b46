"""Canonical JSON: one value, one encoding, so that a digest over bytes is a digest over meaning.

UTF-8, keys sorted by code point, no spaces, non-ASCII letters written as they are, numbers as
Python writes them, at most `MAX_DEPTH` levels. Reading refuses any bytes that the writer would not
have written: duplicate keys, other spacing, a byte order mark, NaN, lone surrogates, huge integers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from foreword.errors import ArtifactError

JsonValue = None | bool | int | float | str | list[Any] | dict[str, Any]

MAX_DEPTH = 16
MAX_INTEGER = 2**53
MAX_BYTES = 1 << 20
MAX_MARKS = 1 << 15
"""Of `,`, `[` and `{`, also inside texts. It bounds how many values there are before one is built:
a megabyte of JSON can hold 500,000 of them, which cost half a second and 50 MB."""
_LONGEST_NUMBER = 32


def encode(value: Any) -> bytes:
    """Canonical bytes of a JSON value.

    Raises:
        ArtifactError: the value has something JSON cannot hold exactly (code `json.value`).
    """
    _check(value, 0)
    return _write(_plain(value))


def decode(data: bytes) -> Any:
    """The value of canonical bytes.

    Raises:
        ArtifactError: not JSON (`json.syntax`), more of it than anyone needs (`json.too_large`), or
            JSON in another form (`json.not_canonical`).
    """
    if len(data) > MAX_BYTES:
        raise ArtifactError(
            f"expected at most {MAX_BYTES} bytes of JSON, got {len(data)}", code="json.too_large"
        )
    marks = data.count(b",") + data.count(b"[") + data.count(b"{")
    if marks > MAX_MARKS:
        raise ArtifactError(
            f"expected at most {MAX_MARKS} commas and opening brackets in JSON, got {marks}",
            code="json.too_large",
        )
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique_keys,
            parse_constant=refuse_constant,
            parse_int=_small_integer,
            parse_float=short_float,
        )
    except (ValueError, RecursionError) as e:
        raise ArtifactError(f"not valid JSON ({str(e)[:200]})", code="json.syntax") from e
    _check(value, 0)
    if _write(value) != data:
        raise ArtifactError(
            "the JSON is not in canonical form (sorted keys, no spaces, shortest numbers); it was "
            "changed after it was written",
            code="json.not_canonical",
        )
    return value


def _write(value: Any) -> bytes:
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode()
    except (ValueError, TypeError) as e:  # lone surrogates end up here
        raise ArtifactError(f"a value cannot be written as JSON ({e})", code="json.value") from e


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ArtifactError(f"nested deeper than {MAX_DEPTH} levels", code="json.value")
    # The frequent and cheap questions first; whether something is a Mapping is the slowest one.
    if value is None or isinstance(value, str | bool):
        return
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ArtifactError("an integer is beyond 2^53", code="json.value")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ArtifactError(f"{value} is not a JSON number", code="json.value")
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner, depth + 1)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ArtifactError(f"an object key is not a string: {key!r}", code="json.value")
            _check(inner, depth + 1)
    else:
        raise ArtifactError(f"{type(value).__name__} is not a JSON type", code="json.value")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, str) else value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """`object_pairs_hook` for `json.loads`: a key twice is a `ValueError`, not the last one's win."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def refuse_constant(name: str) -> NoReturn:
    """`parse_constant` for `json.loads`: NaN and Infinity are a `ValueError`."""
    raise ValueError(f"{name} is not a JSON number")


def _small_integer(text: str) -> int:
    # Checked as text: turning thousands of digits into an integer is slow on purpose-made input.
    if len(text) > _LONGEST_NUMBER or abs(int(text)) > MAX_INTEGER:
        raise ValueError("an integer is beyond 2^53")
    return int(text)


def short_float(text: str) -> float:
    """`parse_float` for `json.loads`: beyond the range of a double is a `ValueError`."""
    if len(text) > _LONGEST_NUMBER or not math.isfinite(float(text)):
        raise ValueError("a number is too long or not finite")
    return float(text)
