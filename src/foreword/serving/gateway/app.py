"""The gateway as an ASGI application. It stands behind the edge, which says who asks.

POST /v1/chat/completions   chat.py          GET /livez, /readyz     health.py
POST /v1/completions        completions.py   GET /openapi.json       openapi.py
GET  /v1/models[/{model}]   models.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

from foreword.errors import NotFound, UsageError
from foreword.serving.contract import Health
from foreword.serving.gateway import health
from foreword.serving.gateway.chat import Chat
from foreword.serving.gateway.completions import Completions
from foreword.serving.gateway.edge import PRINCIPAL, REQUEST_ID
from foreword.serving.gateway.edge.types import App, Receive, Scope, Send, all_of
from foreword.serving.gateway.exchange import Exchange, Kind
from foreword.serving.gateway.front import Front
from foreword.serving.gateway.models import PATH as MODELS
from foreword.serving.gateway.models import Models
from foreword.serving.gateway.openapi import document
from foreword.serving.gateway.reply import Reply
from foreword.serving.gateway.story import Story
from foreword.serving.wire.asks import Ask

Request = TypeVar("Request", bound=Ask)
USER_HEADER = b"x-foreword-user"
_LONGEST_USER = 256


@dataclass
class Lobby:
    """What is answered without a key."""

    engine: Callable[[], Health]
    parts: health.Parts
    draining: Callable[[], bool] = field(default=lambda: False)

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing but whether it lives: whoever asks has no key."""
        live = health.is_live(self.engine())
        await Reply(send).json({"live": live}, status=200 if live else 503)

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whether to send requests here, and the names of the parts that say no."""
        missing = health.unready(self.parts())
        ready = not missing and not self.draining()
        said = {"ready": ready, "draining": self.draining(), "missing": missing}
        await Reply(send).json(said, status=200 if ready else 503)

    async def details(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same with everything that is known: for the operator's port."""
        parts = self.parts()
        ready = not health.unready(parts) and not self.draining()
        said = {
            "ready": ready,
            "draining": self.draining(),
            "parts": {name: part.to_json() for name, part in parts.items()},
        }
        await Reply(send).json(said, status=200 if ready else 503)


def gateway(front: Front, lobby: Lobby) -> App:
    """Everything the public port answers."""
    models = Models(front)
    return Routes(
        {
            "/v1/chat/completions": {"POST": Answering(front, Chat())},
            "/v1/completions": {"POST": Answering(front, Completions())},
            MODELS: {"GET": models},
            f"{MODELS}/": {"GET": models},
            "/openapi.json": {"GET": _describe},
            "/livez": {"GET": lobby.live},
            "/readyz": {"GET": lobby.ready},
        }
    )


@dataclass(frozen=True)
class Answering(Generic[Request]):
    """One request of a kind, from its body to its record."""

    front: Front
    kind: Kind[Request]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = scope[PRINCIPAL]
        trace = _header(scope, b"traceparent")
        story = Story(scope[REQUEST_ID], self.kind.operation, principal, trace)
        sticky = _header(scope, USER_HEADER)[:_LONGEST_USER] or principal.key_id
        body = (await receive())["body"]
        await Exchange(self.front, self.kind, principal, story, Reply(send), sticky).run(body)


@dataclass(frozen=True)
class Routes:
    """By path, then by method. A path that ends in `/` also has what begins with it."""

    table: Mapping[str, Mapping[str, App]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        methods = self._find(scope["path"])
        if methods is None:
            await Reply(send).fail(_nothing_here())
        elif scope["method"] not in methods:
            await Reply(send).fail(_other_method(methods), {"allow": _allowed(methods)}, status=405)
        else:
            await methods[scope["method"]](scope, receive, send)

    def _find(self, path: str) -> Mapping[str, App] | None:
        found = self.table.get(path)
        if found is None:
            begun = (at for at in self.table if at.endswith("/") and path.startswith(at))
            return next((self.table[at] for at in begun), None)
        return found


async def _describe(scope: Scope, receive: Receive, send: Send) -> None:
    await Reply(send).json(_document())


@cache
def _document() -> dict[str, Any]:
    return document()


def _header(scope: Scope, name: bytes) -> str:
    values = all_of(scope["headers"], name)
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _nothing_here() -> NotFound:
    return NotFound(
        "there is nothing at this path; GET /openapi.json says what there is", code="request.path"
    )


def _allowed(methods: Mapping[str, App]) -> str:
    return ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])


def _other_method(methods: Mapping[str, App]) -> UsageError:
    return UsageError(
        f"expected {_allowed(methods)} at this path, got another method", code="request.method"
    )


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
