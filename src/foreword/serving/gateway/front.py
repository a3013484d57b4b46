"""What a request passes through, put together once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from foreword.artifact import Digest
from foreword.errors import ForewordError
from foreword.serving.contract import Backend
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.limits.quotas import Quotas
from foreword.serving.gateway.prompting import Prompter
from foreword.serving.gateway.routing.resolve import Model
from foreword.serving.gateway.routing.route import Route
from foreword.telemetry.records import Record


class Routes(Protocol):
    """From a name to a route; `routing.resolve.Router` is the one that serves."""

    def route(self, principal: Principal, model: str, sticky: str) -> Route: ...

    def after_failure(
        self, principal: Principal, route: Route, error: BaseException
    ) -> Route | None: ...

    def why_ended(self, principal: Principal, route: Route) -> ForewordError | None: ...

    def models(self, principal: Principal) -> tuple[Model, ...]: ...


@dataclass(eq=False)
class Run:
    """A request while the backend generates for it."""

    principal: Principal
    route: Route
    ended: ForewordError | None = None
    """Why it was cancelled, if whoever did so says it: what its client is told."""


@dataclass(frozen=True)
class Front:
    """Everything an exchange needs. `emit` never raises and never waits."""

    base: Digest
    """Fingerprint of the base model that answers."""
    prompter: Prompter
    router: Routes
    quotas: Quotas
    backend: Backend
    emit: Callable[[Record], None]
    most_seconds: float = 600.0
    """After which an answer is given up, waiting included."""
    running: dict[str, Run] = field(default_factory=dict)
    """What the backend is generating, by its ids there, so that it can be ended from outside."""
