"""Any backend on an internal port, for gateways that know its secret.

    POST   /engine/v1/generate         a request; lines of chunks (lines.py)
    DELETE /engine/v1/requests/{id}    give one up
    GET    /engine/v1/base, /capacity, /health, /residents
    POST   /engine/v1/prefetch, /forget    digests
    DELETE /engine/v1/tenants/{name}   forget what was computed for one

Not a route, not a 404, without the secret; nothing but /base for a gateway of another base. It is
meant for a network of one's own; TLS is the network's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from foreword.artifact import BaseRef, Digest
from foreword.errors import (
    AuthError,
    CompatibilityError,
    DeadlineExceeded,
    ForewordError,
    UsageError,
)
from foreword.serving.contract import Backend, PrefixHost
from foreword.serving.upstream.base_json import BASE_HEADER, OTHER_BASE, base_to_json
from foreword.serving.upstream.contract_json import (
    capacity_to_json,
    digests_from_bytes,
    health_to_json,
    request_from_bytes,
    residents_to_json,
)
from foreword.serving.upstream.documents import CAPS, MALFORMED, to_bytes
from foreword.serving.upstream.errors_json import error_to_json
from foreword.serving.upstream.lines import Lines
from foreword.serving.upstream.secret import Secret
from foreword.serving.wire.problems import problem

_BEAT = 5.0
"""Seconds of silence in a stream; clients take three times as much for a failure."""
_BODY_SECONDS = 30.0
_BASE_PATH = "/engine/v1/base"


class Engine(Backend, PrefixHost, Protocol):
    """What generates, and holds the prefixes."""


def engine_app(engine: Engine, base: BaseRef, secret: Secret, *, beat: float = _BEAT) -> ASGIApp:
    """The application; gateways send `secret` as bearer token. `beat`: as `Lines` says."""
    routes = _Routes(engine, base, beat)
    app = Starlette(
        routes=[
            Route("/engine/v1/generate", routes.generate, methods=["POST"]),
            Route("/engine/v1/requests/{id:path}", routes.cancel, methods=["DELETE"]),
            Route(_BASE_PATH, routes.base),
            Route("/engine/v1/capacity", routes.capacity),
            Route("/engine/v1/health", routes.health),
            Route("/engine/v1/residents", routes.residents),
            Route("/engine/v1/prefetch", routes.prefetch, methods=["POST"]),
            Route("/engine/v1/forget", routes.forget, methods=["POST"]),
            Route("/engine/v1/tenants/{name:path}", routes.forget_tenant, methods=["DELETE"]),
        ],
        exception_handlers={ForewordError: _told, HTTPException: _not_there},
    )
    return _Guarded(_Matched(app, base.fingerprint), secret)


class _Guarded:
    """Nothing of `app` without the secret."""

    def __init__(self, app: ASGIApp, secret: Secret) -> None:
        self._app, self._secret = app, secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._secret.opens(scope["headers"]):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            error = AuthError("this port is for gateways that know its secret", code="auth.unknown")
            await _response(error_to_json(error), 401)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


class _Matched:
    """Nothing of `app` but what base it is for a gateway of another base."""

    def __init__(self, app: ASGIApp, base: Digest) -> None:
        self._app, self._base = app, base

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != _BASE_PATH:
            name = BASE_HEADER.lower().encode()
            named = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
            if named != [str(self._base)]:
                await _response(error_to_json(self._other(named)), 409)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _other(self, named: list[str]) -> CompatibilityError:
        return CompatibilityError(
            f"here runs the base {self._base}, the request is for {', '.join(named)[:200] or 'none'}; "
            "start the gateway anew",
            code=OTHER_BASE,
        )


class _Routes:
    def __init__(self, engine: Engine, base: BaseRef, beat: float) -> None:
        self._engine, self._base, self._beat = engine, base, beat

    async def generate(self, request: Request) -> ASGIApp:
        asked = request_from_bytes(await _body(request), time.monotonic())
        return Lines(self._engine, asked, self._beat)

    async def cancel(self, request: Request) -> Response:
        self._engine.cancel(request.path_params["id"])
        return Response(status_code=202)

    async def base(self, request: Request) -> Response:
        return _response(base_to_json(self._base))

    async def capacity(self, request: Request) -> Response:
        return _response(capacity_to_json(self._engine.capacity()))

    async def health(self, request: Request) -> Response:
        return _response(health_to_json(self._engine.health(), time.monotonic()))

    async def residents(self, request: Request) -> Response:
        # On a thread, as what follows: the engine's own may be in a long step.
        return _response(residents_to_json(await asyncio.to_thread(self._engine.residents)))

    async def prefetch(self, request: Request) -> Response:
        digests = digests_from_bytes(await _body(request))
        await asyncio.to_thread(self._engine.prefetch, digests)
        return Response(status_code=202)

    async def forget(self, request: Request) -> Response:
        digests = digests_from_bytes(await _body(request))
        await asyncio.to_thread(self._engine.forget, digests)
        return Response(status_code=202)

    async def forget_tenant(self, request: Request) -> Response:
        await asyncio.to_thread(self._engine.forget_tenant, request.path_params["name"])
        return Response(status_code=202)


async def _body(request: Request) -> bytes:
    """
    Raises:
        UsageError: it is too large, or was not sent to its end (`engine.document`).
        DeadlineExceeded: it came too slowly.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > CAPS.nbytes:
                    raise UsageError(
                        f"expected a document of at most {CAPS.nbytes} bytes, got more; send less",
                        code=MALFORMED,
                    )
    except ClientDisconnect as e:
        raise UsageError("the document was not sent to its end", code=MALFORMED) from e
    except TimeoutError as e:
        raise DeadlineExceeded(
            f"expected the document within {_BODY_SECONDS:g} s, got a part", code="engine.slow"
        ) from e
    return bytes(body)


def _response(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(to_bytes(document), status, media_type="application/json")


async def _told(request: Request, error: Exception) -> Response:
    return _response(error_to_json(error), problem(error).status)


async def _not_there(request: Request, error: Exception) -> Response:
    missing = UsageError("there is no such path and method here", code="engine.path")
    return _response(
        error_to_json(missing), error.status_code if isinstance(error, HTTPException) else 404
    )
