"""The operator's API put together: routes, errors in one form, and the gate in front of all of it."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from foreword.errors import ForewordError, NotFound, UsageError
from foreword.serving.gateway.admin import keys, kills, replica, tenants
from foreword.serving.gateway.admin.bodies import ErrorBody
from foreword.serving.gateway.admin.gate import Gate, told
from foreword.serving.gateway.admin.parts import AdminParts
from foreword.serving.gateway.edge.types import App

DESCRIPTION = "/admin/openapi.json"


def admin_app(parts: AdminParts) -> App:
    """An ASGI application for a port of its own. Without an admin key it answers 401 to everything.

    Every change is told in `access.log` with the operator's key id. Changes take an `If-Match` with the
    `ETag` that was seen, and are refused with 412 if anything was changed since.
    """
    return Gate(described_app(parts), parts)


def described_app(parts: AdminParts) -> FastAPI:
    """The application behind the gate; `app.openapi()` describes it."""
    app = FastAPI(
        title="Foreword, operator's API",
        version=version("foreword"),
        openapi_url=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={"default": {"model": ErrorBody, "description": "Refused, and why."}},
        dependencies=[
            Security(HTTPBearer(auto_error=False))
        ],  # described here, asked for by `Gate`
    )
    app.state.routes = list(app.routes)
    for routes in (tenants, keys, kills, replica):
        router = routes.router(parts)
        app.include_router(router)
        app.state.routes += router.routes
    app.add_exception_handler(ForewordError, _told)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _no_route)
    return app


def _told(_request: Request, error: Exception) -> JSONResponse:
    return told(error)


def _malformed(_request: Request, error: Exception) -> JSONResponse:
    """Where and why; never what came, which may be a key in the wrong place."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    reasons = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found[:3]]
    return told(UsageError("; ".join(reasons)[:500], code="request.malformed"))


def _no_route(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 404
    response = told(
        NotFound(f"there is nothing like this here; see {DESCRIPTION}", code="request.unknown")
    )
    response.status_code = status
    if status == 405:
        response.headers["Allow"] = ", ".join(_methods(request))
    return response


def _methods(request: Request) -> list[str]:
    """Of all routes at this path; Starlette itself tells those of the first one only."""
    routes: list[Route] = request.app.state.routes
    fits = (route for route in routes if route.matches(request.scope)[0] != Match.NONE)
    return sorted({method for route in fits for method in route.methods or ()})
