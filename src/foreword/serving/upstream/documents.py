"""One JSON document between a gateway and an engine: its version, its size, its fields.

Every document says its version. Reading is strict: what is missing, unknown or of another type is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from foreword.artifact.fields import Fields
from foreword.errors import ArtifactError, BadRequest, UsageError
from foreword.serving.wire.bodies import Caps, read_object

VERSION = 1
MALFORMED = "engine.document"
"""Code of the refusal of a document that is none."""
CAPS = Caps(nbytes=16 << 20, openings=1 << 18, commas=1 << 22, fields=1 << 20)
"""Room for a prompt of two million tokens, or for the list of 100,000 resident prefixes."""
_INT = 2**63
MANY = 1 << 22
"""Entries of one list."""


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """One line of JSON, without its end.

    Raises:
        UsageError: it has a number or a text that JSON cannot hold (`engine.document`).
    """
    try:
        text = json.dumps({"v": VERSION, **document}, separators=(",", ":"), allow_nan=False)
    except ValueError as e:
        raise UsageError(f"not every number can be sent ({e})", code=MALFORMED) from e
    return text.encode()


class Document:
    """Reads one document; at the end of the block nothing may be left of it.

    Raises:
        UsageError: it is of another version or form (`engine.document`).
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._fields = Fields(read_object(data, CAPS), "the document")
        except BadRequest as e:
            raise UsageError(str(e), code=MALFORMED) from e

    def __enter__(self) -> Fields:
        try:
            self._fields.integer("v", VERSION, VERSION)
        except ArtifactError as e:
            raise UsageError(
                f"gateway and engine speak different versions ({e}); run the same release of both",
                code=MALFORMED,
            ) from e
        return self._fields

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            try:
                self._fields.done()
            except ArtifactError as e:
                raise UsageError(str(e), code=MALFORMED) from e
        elif isinstance(error, ArtifactError):
            raise UsageError(str(error), code=MALFORMED) from error


def integer(read: Fields, name: str) -> int:
    return read.integer(name, -_INT, _INT)


def integer_or_none(read: Fields, name: str) -> int | None:
    return None if read.is_null(name) else integer(read, name)


def number(read: Fields, name: str) -> float:
    return read.number(name, -math.inf, math.inf)


def number_or_none(read: Fields, name: str) -> float | None:
    return None if read.is_null(name) else number(read, name)
