"""Errors between a gateway and an engine: of the same class on both sides."""

from __future__ import annotations

import math
from typing import Any

from foreword.artifact.fields import Fields
from foreword.errors import (
    AuthError,
    BadRequest,
    Cancelled,
    CompatibilityError,
    ConfigError,
    DataError,
    DeadlineExceeded,
    EngineFailed,
    ForewordError,
    Overloaded,
    PrefixUnavailable,
    PromptTooLong,
    QuotaExceeded,
    ServingError,
    UnsupportedModel,
    UsageError,
)  # fmt: skip
from foreword.serving.upstream.documents import Document, number_or_none

_KINDS: dict[str, type[ForewordError]] = {
    kind.__name__: kind
    for kind in (
        UsageError, ConfigError, DataError, BadRequest, PromptTooLong, CompatibilityError,
        UnsupportedModel, ServingError, AuthError, QuotaExceeded, Overloaded, PrefixUnavailable,
        DeadlineExceeded, Cancelled, EngineFailed,
    )
}  # fmt: skip
_MESSAGE = 4000
"""Characters of an error's message."""


def error_to_json(error: BaseException) -> dict[str, Any]:
    """Class, code, message and `retry_after`; of an error that is not ours only that there was one."""
    kind = next((each.__name__ for each in type(error).__mro__ if each.__name__ in _KINDS), None)
    if not isinstance(error, ForewordError) or kind is None:
        error, kind = EngineFailed("the engine's process failed; its log says why"), "EngineFailed"
    after = error.retry_after if isinstance(error, ServingError) else None
    return {
        "error": {
            "kind": kind,
            "code": error.code,
            "message": str(error)[:_MESSAGE],
            "retry_after": after if after is None or math.isfinite(after) else None,
        }
    }


def error_from_bytes(data: bytes) -> ForewordError:
    """The error of a document, of the class that it was.

    Raises:
        UsageError: it does not tell of one (`engine.document`).
    """
    with Document(data) as read:
        return error_of(read.object("error"))


def error_of(read: Fields) -> ForewordError:
    """The error in the field `error` of a document."""
    kind = _KINDS[read.choice("kind", list(_KINDS))]
    code, message = read.text("code"), read.text("message")
    after = number_or_none(read, "retry_after")
    read.done()
    if issubclass(kind, ServingError):
        return kind(message, code=code, retry_after=after)
    return kind(message, code=code)
