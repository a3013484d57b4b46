"""A gateway on a real socket in front of a scripted backend, with real keys, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx2
from openai import OpenAI

from foreword.serving.gateway.access.keys import believe, issue
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import Limits, Tenant
from foreword.serving.gateway.app import Lobby, gateway
from foreword.serving.gateway.edge import Edge, EdgeSettings, edge, uvicorn_config
from foreword.serving.gateway.front import Front
from foreword.serving.gateway.limits.quotas import Quotas
from foreword.serving.gateway.prompting import Prompter
from foreword.telemetry.records import Record
from tests.gateway.edge_server import running
from tests.gateway.routing.made import HERE, Door, released, table_of
from tests.serving.scripted import ScriptedBackend
from tests.tiny import tokenizer

CHAT = (
    "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}</s>{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}<s>assistant:"
)
CONTEXT = 400
NAME, OTHER = "acme/support", "globex/secret"


@dataclass
class FrontDoor:
    url: str
    backend: ScriptedBackend
    door: Door
    front: Front
    edge: Edge
    keys: dict[str, str]
    """By tenant."""
    records: list[Record] = field(default_factory=list)

    def client(self, tenant: str = "acme") -> OpenAI:
        return OpenAI(
            base_url=f"{self.url}/v1", api_key=self.keys.get(tenant, tenant), max_retries=0
        )

    def post(self, path: str, body: Any, tenant: str = "acme", **headers: str) -> httpx2.Response:
        authorized = {"Authorization": f"Bearer {self.keys[tenant]}", **headers}
        return httpx2.post(f"{self.url}{path}", json=body, headers=authorized, timeout=20)

    def get(self, path: str, tenant: str | None = "acme") -> httpx2.Response:
        authorized = {"Authorization": f"Bearer {self.keys[tenant]}"} if tenant else {}
        return httpx2.get(f"{self.url}{path}", headers=authorized, timeout=20)


def chat_body(model: str = NAME, text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@contextmanager
def front_door(canary: float = 0.0, **limits: int) -> Iterator[FrontDoor]:
    """acme may use its own prefix and the base, globex its own prefix only."""
    table = AccessTable(
        {
            "acme": Tenant("acme", base=True, limits=Limits(**limits)),
            "globex": Tenant("globex"),
        }
    )
    texts = {}
    for tenant in table.tenants:
        texts[tenant], record = issue(tenant, datetime.now(UTC))
        table = table.with_key(record)
    door = Door(table_of(released(NAME, OTHER, canary=canary)), table)
    spoken = tokenizer()
    spoken.chat_template = CHAT
    prompter, backend, records = Prompter(spoken, CONTEXT), ScriptedBackend(), list[Record]()
    quotas = Quotas(lambda tenant, key: door.access.limits_of(tenant, key))
    front = Front(HERE, prompter, door.router, quotas, backend, records.append)
    lobby = Lobby(backend.health, dict)
    guarded = edge(
        gateway(front, lobby),
        EdgeSettings(open=("/livez", "/readyz")),
        lambda header: believe(door.access, header, datetime.now(UTC)),
    )
    with running(uvicorn_config(guarded, host="127.0.0.1", port=0, grace=1)) as (server, _):
        port = server.servers[0].sockets[0].getsockname()[1]
        yield FrontDoor(f"http://127.0.0.1:{port}", backend, door, front, guarded, texts, records)
    prompter.close()
