"""The edge, put together around an application.

connection (protocol) ─ stamp ─ doors ─┬─ gate ─ bodies ─ overload ─ presence ─ application
                                       └─ open doors ────────────────────────── application
"""

from __future__ import annotations

from dataclasses import dataclass

from foreword.serving.gateway.edge.body import Bodies
from foreword.serving.gateway.edge.doors import Doors
from foreword.serving.gateway.edge.drain import Gate
from foreword.serving.gateway.edge.overload import Overload
from foreword.serving.gateway.edge.presence import Presence
from foreword.serving.gateway.edge.settings import EdgeSettings
from foreword.serving.gateway.edge.stamp import Stamp
from foreword.serving.gateway.edge.types import App, Believe, Receive, Refused, Scope, Send


@dataclass(frozen=True)
class Edge:
    """An ASGI application. Nothing reaches the one inside but what `settings` and `believe` allow."""

    app: App
    """The one inside."""
    settings: EdgeSettings
    refused: Refused
    entrance: App
    gate: Gate
    bodies: Bodies
    overload: Overload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self.entrance(scope, receive, send)
            case "lifespan":
                await self.app(scope, receive, send)
            case "websocket":
                # The server answers 403; there is nothing here that speaks it.
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            case other:
                raise RuntimeError(f"expected http, lifespan or websocket, got {other!r}")


def edge(
    app: App, settings: EdgeSettings, believe: Believe, refused: Refused = lambda code, status: None
) -> Edge:
    """Guard `app`, which finds who asks in `scope["foreword.principal"]`."""
    overload = Overload(Presence(app), settings.requests)
    bodies = Bodies(overload, settings)
    gate = Gate(bodies)
    doors = Doors(gate, app, believe, settings)
    stamp = Stamp(doors, refused, lambda: gate.draining)
    return Edge(app, settings, refused, stamp, gate, bodies, overload)
