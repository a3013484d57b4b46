"""From an exception to the error a client gets: status, a body in OpenAI's shape, headers.

Whoever asks is told what is in our own errors, unless it is about our side of the house (a disk, an
engine). Of an error that is not ours only that there was one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from foreword.errors import (
    ArtifactError,
    AuthError,
    BadRequest,
    Cancelled,
    CompatibilityError,
    DeadlineExceeded,
    EngineFailed,
    ForewordError,
    NotFound,
    Overloaded,
    PrefixUnavailable,
    QuotaExceeded,
    RegistryError,
    ServingError,
    StorageError,
    TrainingError,
    TrustError,
    UsageError,
)  # fmt: skip

_BUG = "something broke here while this request was worked on; its request id finds it in the log"
_STATUS: tuple[tuple[type[ForewordError], int], ...] = (
    (UsageError, 400),
    (AuthError, 401),
    (NotFound, 404),
    (RegistryError, 409),
    (QuotaExceeded, 429),
    (Overloaded, 429),
    (DeadlineExceeded, 504),
    (PrefixUnavailable, 503),
    (Cancelled, 503),
    (EngineFailed, 503),
    (ArtifactError, 503),
    (CompatibilityError, 503),
    (TrustError, 503),
    (StorageError, 503),
    (TrainingError, 500),
    (ServingError, 503),
    (ForewordError, 500),
)
"""The first class that fits counts."""
_STATUS_OF_CODE = {
    "auth.scope": 403,  # the key is known, and another one would do (RFC 6750, section 3.1)
    "auth.tenant": 403,
    "access.conflict": 412,
    # It will not come back, so 503 would send clients and alarms the wrong way.
    "prefix.does_not_fit_base": 409,
    "prefix.retired": 409,
    "prefix.revoked": 409,
    "request.path": 404,
    "request.method": 405,
    "request.slow_headers": 408,
    "request.slow_body": 408,
    "request.too_large": 413,
    "request.encoding": 415,
    "request.media_type": 415,
    "request.headers_too_large": 431,
    # The server as a whole has no room (RFC 9110, 15.6.4); 429 is about one client's share.
    "serving.bodies": 503,
    "serving.connections": 503,
    "serving.draining": 503,
    "serving.overloaded": 503,
    "serving.prompts": 503,
    # A wrong answer was caught and thrown away: asking again at once is no remedy.
    "serving.digest_mismatch": 500,
}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    412: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    503: "unavailable_error",
    504: "timeout_error",
}
_OURS: dict[type[ForewordError], str] = {
    StorageError: "a disk or a store behind this server did not do its part; ask again later",
    EngineFailed: "the engine could not finish this request; ask again",
    TrainingError: _BUG,
}
"""Classes whose messages are for the operator: they name paths, addresses and inner workings."""
_OURS_BY_CODE = {
    "prefix.fetch_failed": "its prefix could not be fetched; ask again later",
    "prefix.fetch_timeout": "its prefix could not be fetched in time; ask again later",
}


@dataclass(frozen=True)
class Problem:
    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def problem(error: BaseException) -> Problem:
    """What a client is told of an error. Never raises."""
    if not isinstance(error, ForewordError):
        return Problem(500, _body(_BUG, 500, "bug", None))
    status = _STATUS_OF_CODE.get(error.code) or next(
        status for kind, status in _STATUS if isinstance(error, kind)
    )
    param = error.param if isinstance(error, BadRequest) else None
    return Problem(status, _body(_said(error), status, error.code, param), _headers(error, status))


def _said(error: ForewordError) -> str:
    by_kind = next((text for kind, text in _OURS.items() if isinstance(error, kind)), None)
    return _OURS_BY_CODE.get(error.code) or by_kind or str(error)


def _headers(error: ForewordError, status: int) -> dict[str, str]:
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    after = error.retry_after if isinstance(error, ServingError) else None
    if after is not None and math.isfinite(after):
        # Whole seconds (RFC 9110, 10.2.3), rounded up: earlier would be in vain.
        headers["Retry-After"] = str(max(1, math.ceil(after)))
    return headers


def _body(message: str, status: int, code: str, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": _TYPES[status], "param": param, "code": code}}
