"""The operator's port: metrics and health for machines, and the admin API for who has an admin key."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from foreword.errors import NotFound
from foreword.serving.contract import PrefixHost
from foreword.serving.gateway.admin.app import admin_app
from foreword.serving.gateway.admin.parts import AdminParts
from foreword.serving.gateway.app import Lobby
from foreword.serving.gateway.edge.types import App, Receive, Scope, Send
from foreword.serving.gateway.reply import Reply
from foreword.serving.server.house import House
from foreword.telemetry.prometheus import PrometheusSink
from foreword.telemetry.usage import read_usage


@dataclass(frozen=True)
class OperatorPort:
    """/metrics, /livez and /readyz ask for no key: who reaches this port is trusted that far."""

    metrics: PrometheusSink
    lobby: Lobby
    admin: App

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path == "/metrics":
            await _page(send, self.metrics)
        elif path == "/livez":
            await self.lobby.live(scope, receive, send)
        elif path == "/readyz":
            await self.lobby.details(scope, receive, send)
        else:
            await self.admin(scope, receive, send)


def operator_port(house: House, host: PrefixHost) -> OperatorPort:
    store = house.keys.store
    if store is None:
        nobody = no_admin("a server that asks for no keys (--open)")
        return OperatorPort(house.telling.metrics, house.lobby, nobody)
    counted = house.telling.usage
    parts = AdminParts(
        store, house.follower, host, lambda: _stop(house),
        None if counted is None else lambda: read_usage(counted),
    )  # fmt: skip
    return OperatorPort(house.telling.metrics, house.lobby, admin_app(parts))


def _stop(house: House) -> None:
    """As if the process was told from outside; a second time would cut off who is still inside."""
    if not house.edge.gate.draining:
        os.kill(os.getpid(), signal.SIGTERM)


async def _page(send: Send, metrics: PrometheusSink) -> None:
    body = metrics.page()
    headers = [
        (b"content-type", metrics.content_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def no_admin(what: str) -> App:
    """In place of an admin API."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Reply(send).fail(
                NotFound(f"there is no admin API: this is {what}", code="admin.not_here")
            )

    return app
