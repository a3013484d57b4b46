"""How uvicorn has to be set up so that nothing of it stands beside the edge."""

from __future__ import annotations

from typing import cast

import uvicorn
from uvicorn._types import ASGIApplication

from foreword.serving.gateway.edge.compose import Edge
from foreword.serving.gateway.edge.protocol import protocol
from foreword.serving.gateway.edge.settings import EdgeSettings
from foreword.serving.gateway.edge.types import App, Refused


def uvicorn_config(
    app: Edge, *, host: str, port: int, grace: float | None = None
) -> uvicorn.Config:
    """`grace`: seconds a stopping server waits for requests before it cancels them; None: for ever."""
    return guarded_config(app, app.settings, app.refused, host=host, port=port, grace=grace)


def guarded_config(
    app: App,
    settings: EdgeSettings,
    refused: Refused,
    *,
    host: str,
    port: int,
    grace: float | None = None,
) -> uvicorn.Config:
    """The same connection for an application that is no edge, and asks for keys itself."""
    return uvicorn.Config(
        cast(ASGIApplication, app),
        host=host,
        port=port,
        http=protocol(settings, refused),
        ws="none",
        loop="asyncio",
        # Who a client says it is, in X-Forwarded-For, is never believed.
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=None if grace is None else int(grace),
    )
