"""An engine for gateways in other processes. It knows no tenants: they are a gateway's business."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from foreword.serving.engine.backend import EmbeddedBackend
from foreword.serving.gateway.app import Lobby
from foreword.serving.gateway.edge import EdgeSettings, guarded_config
from foreword.serving.gateway.edge.types import App, Receive, Scope, Send
from foreword.serving.gateway.health import Part, engine_part
from foreword.serving.server.doors import bind_both
from foreword.serving.server.embedded import Embedded, Listeners, embedded, load
from foreword.serving.server.gauges import capacity_gauges, residency
from foreword.serving.server.house import open_registry
from foreword.serving.server.operator import OperatorPort, no_admin
from foreword.serving.server.process import TOLD, Door, Say, serve
from foreword.serving.server.secret import secret_of
from foreword.serving.server.settings import ServeSettings
from foreword.serving.server.telling import Telling, telling
from foreword.serving.upstream.app import engine_app
from foreword.signing.store import load_policy
from foreword.telemetry.records import Gauges

_GENERATE = "/engine/v1/generate"


@dataclass
class Leaving:
    """An application and who is inside it; draining, its engine takes nothing new."""

    app: App
    backend: EmbeddedBackend
    inside: int = 0
    draining: bool = field(default=False, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        counts = scope["type"] == "http" and scope["path"] == _GENERATE
        self.inside += counts
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside -= counts

    def drain(self) -> None:
        self.draining = True

    async def wait(self, timeout: float) -> bool:
        """The engine ends what is left then, and says so to each."""
        return await self.backend.drain(timeout)


@dataclass(frozen=True)
class Alone:
    """What the process runs."""

    gate: Leaving

    def cut_off(self) -> None:
        """Nothing is left: the engine ended it."""


def run_engine(settings: ServeSettings, place: Path, say: Say) -> None:
    """
    Raises:
        ForewordError: as `run`.
    """
    with ExitStack() as opened:
        registry = opened.enter_context(open_registry(settings.registry))
        load_policy(settings.trust)
        secret, sockets = secret_of(settings), bind_both(settings)
        base, told = load(settings.base), Listeners()
        engine = embedded(base, settings.embedded, registry, settings.trust, place, told)
        opened.callback(engine.backend.close)
        hub = opened.enter_context(_telling(settings, engine, place))
        told.add(hub.hub.emit)
        app = engine_app(engine.backend, base.ref, secret)
        alone = Alone(Leaving(app, engine.backend))  # type: ignore[arg-type]
        lobby = _lobby(settings, engine, alone)
        public = guarded_config(
            alone.gate, settings.edge, _not_counted,
            host=settings.host, port=settings.port, grace=TOLD,
        )  # fmt: skip
        private = guarded_config(
            OperatorPort(hub.metrics, lobby, no_admin("an engine; its gateways have one")),
            EdgeSettings(), _not_counted,
            host=settings.admin_host, port=settings.admin_port, grace=TOLD,
        )  # fmt: skip
        doors = [Door(sockets.public, public), Door(sockets.private, private)]

        def ready() -> None:
            say(f"an engine of {base.ref.id} ({base.ref.fingerprint.short}) at {doors[0].url}")
            say(f"metrics and health at {doors[1].url}")

        asyncio.run(serve(alone, doors, settings.grace, ready, say))


def _telling(
    settings: ServeSettings, engine: Embedded, place: Path
) -> AbstractContextManager[Telling]:
    """Requests are told of by gateways, prefixes that come and go by their engine."""
    own = settings.telemetry.model_copy(update={"usage": False, "otlp": ""})
    add = residency(engine.stats)

    def gauges() -> Gauges:
        return add(capacity_gauges(engine.backend.capacity()))

    return telling(own, gauges, place)


def _lobby(settings: ServeSettings, engine: Embedded, alone: Alone) -> Lobby:
    def parts() -> Mapping[str, Part]:
        health, late = engine.backend.health(), settings.embedded.late_after
        return {"engine": engine_part(health, time.time(), time.monotonic(), late)}

    return Lobby(engine.backend.health, parts, lambda: alone.gate.draining)


def _not_counted(code: str, status: int) -> None:
    """What never became a request is a gateway's fault, which it tells of itself."""
