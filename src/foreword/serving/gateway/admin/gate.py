"""Nothing of the operator's API without an admin key: not a route, not its description, not a 404."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi.responses import JSONResponse

from foreword.errors import AuthError, ForewordError
from foreword.serving.gateway.access.keys import believe, require_scope
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.admin.parts import AdminParts
from foreword.serving.gateway.edge.types import App, Receive, Scope, Send, all_of
from foreword.serving.wire.problems import problem

OPERATOR = "foreword.operator"
"""Key of the scope: the `Principal` of a request that was let in."""


@dataclass(frozen=True)
class Gate:
    """`app` for requests with an admin key; a problem for all others, whatever their path."""

    app: App
    parts: AdminParts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            try:
                operator = self._operator(scope)
            except ForewordError as error:
                await told(error)(scope, receive, send)
            else:
                await self.app({**scope, OPERATOR: operator}, receive, send)
        else:  # a WebSocket: there is none here
            await send({"type": "websocket.close", "code": 1008})

    def _operator(self, scope: Scope) -> Principal:
        found = all_of(scope["headers"], b"authorization")
        if len(found) > 1:
            raise AuthError("expected one Authorization header, got several", code="auth.malformed")
        header = found[0].decode("latin-1") if found else None
        principal = believe(self.parts.store.table(), header, self.parts.now())
        require_scope(principal, "admin")
        return principal


def told(error: BaseException) -> JSONResponse:
    """An error as everywhere on the wire."""
    found = problem(error)
    return JSONResponse(found.body, found.status, headers=dict(found.headers))
