"""Every error has a status, none tells what is not the client's business; events are one line."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator

import pytest

from foreword import errors
from foreword.errors import (
    AuthError,
    BadRequest,
    EngineFailed,
    ForewordError,
    NotFound,
    Overloaded,
    PrefixUnavailable,
    PromptTooLong,
    QuotaExceeded,
    StorageError,
    UsageError,
)
from foreword.serving.wire import sse
from foreword.serving.wire.problems import problem

STATUS = {
    "ForewordError": 500, "UsageError": 400, "ConfigError": 400, "DataError": 400, "BadRequest": 400,
    "PromptTooLong": 400, "ArtifactError": 503, "CompatibilityError": 503, "UnsupportedModel": 503,
    "TrainingError": 500, "StorageError": 503, "TrustError": 503, "RegistryError": 409,
    "Conflict": 409, "NotFound": 404, "ServingError": 503, "AuthError": 401, "QuotaExceeded": 429,
    "Overloaded": 503, "PrefixUnavailable": 503, "DeadlineExceeded": 504, "Cancelled": 503,
    "EngineFailed": 503,
}  # fmt: skip


def kinds() -> Iterator[type[ForewordError]]:
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, ForewordError):
            yield kind


@pytest.mark.parametrize("kind", list(kinds()))
def test_every_class_of_error_has_its_status_and_openais_shape(kind: type[ForewordError]) -> None:
    told = problem(kind("what happened", code="some.code"))
    if kind is Overloaded:
        told = problem(kind("what happened"))
    assert told.status == STATUS[kind.__name__]
    assert list(told.body) == ["error"]
    assert set(told.body["error"]) == {"message", "type", "param", "code"}
    assert told.body["error"]["type"].endswith("_error")
    assert json.loads(json.dumps(told.body)) == told.body


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (BadRequest("x", code="request.too_large"), 413, None),
        (PromptTooLong("x", code="context.too_long"), 400, None),
        (NotFound("x", code="model.not_found"), 404, None),
        (QuotaExceeded("x", retry_after=0.2), 429, "1"),
        (Overloaded("x", code="serving.queue_full", retry_after=2.1), 429, "3"),
        (Overloaded("x", code="serving.draining", retry_after=1.0), 503, "1"),
        (Overloaded("x", code="serving.connections"), 503, None),
        (PrefixUnavailable("x", code="prefix.killed"), 503, None),
        (PrefixUnavailable("x", retry_after=float("inf")), 503, None),
        (EngineFailed("x", code="serving.digest_mismatch"), 500, None),
        (EngineFailed("x", retry_after=0.0), 503, "1"),
    ],
)
def test_codes_and_waits(error: ForewordError, status: int, retry: str | None) -> None:
    told = problem(error)
    assert told.status == status
    assert told.headers.get("Retry-After") == retry
    assert told.body["error"]["code"] == error.code


def test_whoever_has_to_prove_who_it_is_is_told_how() -> None:
    assert problem(AuthError("x")).headers == {"WWW-Authenticate": "Bearer"}


def test_the_field_that_is_wrong_is_named() -> None:
    assert (
        problem(BadRequest("x", param="messages[0].role")).body["error"]["param"]
        == "messages[0].role"
    )
    assert problem(UsageError("x")).body["error"]["param"] is None


@pytest.mark.parametrize(
    "error",
    [
        ValueError("canary"), KeyError("canary"), RecursionError("canary"), MemoryError("canary"),
        StorageError("/var/lib/canary is full"), EngineFailed("the engine stopped (canary)"),
        PrefixUnavailable("could not reach http://canary", code="prefix.fetch_failed"),
    ],
)  # fmt: skip
def test_what_is_on_our_side_of_the_house_is_not_told(error: Exception) -> None:
    told = problem(error)
    assert told.status >= 500
    assert "canary" not in json.dumps(told.body)


def test_a_bug_is_told_as_a_bug() -> None:
    told = problem(ZeroDivisionError())
    assert (told.status, told.body["error"]["code"]) == (500, "bug")


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    data = {"text": "a\nb\r\n\u2028\u0085\ud800 ü", "number": 1}
    line = sse.event(data)
    assert line.startswith(b"data: ")
    assert line.endswith(b"\n\n")
    assert b"\n" not in line[:-2]
    assert b"\r" not in line
    assert json.loads(line[6:].decode()) == data
    assert sse.error({"error": {}}).startswith(b"event: error\ndata: {")
    assert sse.DONE == b"data: [DONE]\n\n"


def test_a_number_that_is_none_is_null() -> None:
    for text in ("ü", "\ud800"):  # the second one takes the longer way
        found = sse.event({"text": text, "a": float("nan"), "b": [-float("inf"), 0.5]})
        assert json.loads(found[6:].decode()) == {"text": text, "a": None, "b": [None, 0.5]}
