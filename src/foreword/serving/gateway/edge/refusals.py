"""Every refusal of the edge: what was expected, what came, what to do. The wire gives it its form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from foreword.errors import DeadlineExceeded, ForewordError, Overloaded, UsageError
from foreword.serving.gateway.edge.settings import EdgeSettings
from foreword.serving.gateway.edge.types import Message, Send
from foreword.serving.wire.problems import Problem, problem

SAFE_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
"""Answers belong to one key and are JSON or an event stream, whatever a browser may think."""


def bad_head() -> ForewordError:
    return UsageError(
        "expected an HTTP/1.1 request (RFC 9112), got something else; send one", code="request.http"
    )


def large_head(limits: EdgeSettings) -> ForewordError:
    return UsageError(
        f"expected at most {limits.headers} headers in {limits.header_bytes} bytes, got more; "
        "send fewer",
        code="request.headers_too_large",
    )


def slow_head(seconds: float) -> ForewordError:
    return DeadlineExceeded(
        f"expected a request's headers within {seconds:g} s, got a part; send them at once",
        code="request.slow_headers",
    )


def too_many_connections(most: int) -> ForewordError:
    return Overloaded(
        f"all {most} connections are in use; try again later",
        code="serving.connections",
        retry_after=1.0,
    )


def path() -> ForewordError:
    return UsageError(
        "expected a path of plain segments as the API description lists them, got one with empty, "
        "dotted or escaped parts; write it plainly",
        code="request.path",
    )


def authorization() -> ForewordError:
    return UsageError(
        "expected one Authorization header, got several; send the one that counts",
        code="request.authorization",
    )


def large_body(most: int) -> ForewordError:
    return UsageError(
        f"expected a body of at most {most} bytes, got more; send less", code="request.too_large"
    )


def slow_body(seconds: float) -> ForewordError:
    return DeadlineExceeded(
        f"expected the body within {seconds:g} s, got a part; send it faster or send less",
        code="request.slow_body",
    )


def encoded_body() -> ForewordError:
    return UsageError(
        "expected a body as it is, got one with a Content-Encoding; send it without",
        code="request.encoding",
    )


def other_body() -> ForewordError:
    return UsageError(
        "expected the Content-Type application/json in UTF-8, got another; send JSON",
        code="request.media_type",
    )


def no_room_for_bodies() -> ForewordError:
    return Overloaded(
        "too many bytes of requests are being worked on; try again later",
        code="serving.bodies",
        retry_after=1.0,
    )


def draining() -> ForewordError:
    return Overloaded(
        "this server is going to stop and takes no new requests; ask another one",
        code="serving.draining",
        retry_after=1.0,
    )


def overloaded(inside: int) -> ForewordError:
    return Overloaded(
        f"{inside} requests are being worked on, which is all there is room for; try again later",
        code="serving.overloaded",
        retry_after=1.0,
    )


def response(problem_: Problem) -> bytes:
    """A whole HTTP/1.1 response, for where there is no application to send it."""
    body = _json(problem_)
    headers = {**_headers(problem_, len(body)), "connection": "close"}
    lines = [f"HTTP/1.1 {problem_.status} {HTTPStatus(problem_.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def refuse(send: Send, error: BaseException, more: Mapping[str, str]) -> tuple[str, int]:
    """Answer instead of the application, with `more` headers; the code and status that it told."""
    problem_ = problem(error)
    body = _json(problem_)
    headers = {**_headers(problem_, len(body)), **more}
    start: Message = {
        "type": "http.response.start",
        "status": problem_.status,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})
    return problem_.body["error"]["code"], problem_.status


def _json(problem_: Problem) -> bytes:
    return json.dumps(problem_.body, ensure_ascii=False).encode()


def _headers(problem_: Problem, length: int) -> dict[str, str]:
    told_headers = {name.lower(): value for name, value in problem_.headers.items()}
    return {
        **SAFE_HEADERS,
        **told_headers,
        "content-type": "application/json",
        "content-length": str(length),
    }
