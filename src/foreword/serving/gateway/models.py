"""GET /v1/models: the bare model and every prefix that this key may use."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from foreword.serving.gateway.access.keys import require_scope
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.words import BASE
from foreword.serving.gateway.edge import PRINCIPAL
from foreword.serving.gateway.edge.types import Receive, Scope, Send
from foreword.serving.gateway.front import Front
from foreword.serving.gateway.receipts import receipt
from foreword.serving.gateway.reply import Reply
from foreword.serving.wire.answers import OWNER, ModelEntry, model_entry, model_list
from foreword.signing.trusted import tenant_of

PATH = "/v1/models"


@dataclass(frozen=True)
class Models:
    """The list, and by name also a version, an alias or a digest that is in no list."""

    front: Front
    created: int = field(default_factory=lambda: int(time.time()))
    """Unix seconds since when they can be asked here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply, principal = Reply(send), scope[PRINCIPAL]
        try:
            require_scope(principal, "models")
            name = scope["path"].removeprefix(PATH).removeprefix("/")
            if name:
                await self._one(reply, principal, name)
            else:
                names = [each.name for each in self.front.router.models(principal)]
                await reply.json(model_list(map(self._entry, names)))
        except Exception as error:
            await reply.fail(error)

    async def _one(self, reply: Reply, principal: Principal, name: str) -> None:
        """What a request that names it would get now."""
        route = self.front.router.route(principal, name, principal.key_id)
        would_get = receipt(route, route.adapters).body()
        await reply.json({**model_entry(self._entry(name)), "foreword": would_get})

    def _entry(self, name: str) -> ModelEntry:
        if name == BASE:
            return ModelEntry(BASE, self.created)
        plain = name.partition("@")[0]
        owner = tenant_of(plain) or OWNER
        return ModelEntry(name, self.created, owner, BASE)
