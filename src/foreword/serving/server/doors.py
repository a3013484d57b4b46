"""The two addresses of a process: the one for requests, and the operator's."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from foreword.serving.contract import PrefixHost
from foreword.serving.gateway.edge import EdgeSettings, guarded_config, uvicorn_config
from foreword.serving.server.house import House, Model
from foreword.serving.server.operator import operator_port
from foreword.serving.server.process import TOLD, Door, Say, bind
from foreword.serving.server.settings import ServeSettings


@dataclass(frozen=True)
class Sockets:
    public: socket.socket
    private: socket.socket


def bind_both(settings: ServeSettings) -> Sockets:
    """
    Raises:
        ConfigError: an address cannot be had (`serve.address`).
    """
    return Sockets(
        bind(settings.host, settings.port, "--port"),
        bind(settings.admin_host, settings.admin_port, "--admin-port"),
    )


def gateway_doors(
    settings: ServeSettings, built: House, host: PrefixHost, sockets: Sockets
) -> list[Door]:
    public = uvicorn_config(built.edge, host=settings.host, port=settings.port, grace=TOLD)
    private = guarded_config(
        operator_port(built, host), EdgeSettings(), built.edge.refused,
        host=settings.admin_host, port=settings.admin_port, grace=TOLD,
    )  # fmt: skip
    return [Door(sockets.public, public), Door(sockets.private, private)]


def tell(settings: ServeSettings, built: House, model: Model, doors: list[Door], say: Say) -> None:
    """That it can be used, and with what."""
    table, status = built.follower.table, built.follower.status
    released = sum(named.release is not None for named in table.names.values())
    say(f"serving {model.name} ({model.fingerprint.short}) at {doors[0].url}/v1")
    say(f"metrics, health and admin at {doors[1].url}")
    say(f"prefixes released: {released}, as of entry {status.seq} ({status.source})")
    if status.error:
        say(f"the registry does not answer ({status.error}); what was known before is served")
    if settings.open:
        say("no keys are asked for (--open): whoever reaches the port may use everything")
