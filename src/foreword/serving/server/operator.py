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
from foreword.serving.gateway.routing.follower import Follower
from foreword.serving.gateway.routing.table import ReleaseTable
from foreword.serving.server.house import House
from foreword.telemetry.prometheus import PrometheusSink


@dataclass(frozen=True)
class _Seen:
    """The follower, as the admin API looks at it."""

    follower: Follower

    @property
    def table(self) -> ReleaseTable:
        return self.follower.table

    @property
    def age(self) -> float:
        return self.follower.status.age


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
        return OperatorPort(house.telling.metrics, house.lobby, _no_admin)
    parts = AdminParts(store, _Seen(house.follower), host, lambda: _stop(house))
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


async def _no_admin(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await Reply(send).fail(
            NotFound(
                "this server asks for no keys (--open), so it has no admin API",
                code="admin.not_here",
            )
        )
