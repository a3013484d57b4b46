"""Clients that ask at their own pace, whatever the server does; and those that wait for their answers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2

from tests.reliability.toy_server import PROMPT

_PATIENCE = 60.0


@dataclass(frozen=True)
class Told:
    """What one request was told, and when by `time.monotonic()`."""

    tenant: str
    status: int
    code: str
    at: float
    seconds: float


@dataclass(frozen=True)
class Crowd:
    """Tenants with their keys, and what all of them ask for."""

    url: str
    keys: Mapping[str, str]
    model: Mapping[str, str]
    """By tenant."""
    tokens: int

    def wait_for_answers(self, clients: int, seconds: float) -> list[Told]:
        """`clients` of each tenant ask one request after the other."""
        return asyncio.run(self._closed(clients, seconds))

    def keep_coming(
        self, rate: float, seconds: float, weights: Mapping[str, float], seed: int = 30
    ) -> list[Told]:
        """`rate` requests a second arrive at random moments, shared among tenants by weight."""
        return asyncio.run(self._open(rate, seconds, weights, random.Random(seed)))

    async def _closed(self, clients: int, seconds: float) -> list[Told]:
        end = time.monotonic() + seconds

        async def one(client: httpx2.AsyncClient, tenant: str) -> list[Told]:
            told: list[Told] = []
            while time.monotonic() < end:
                told.append(await self._ask(client, tenant))
            return told

        async with self._client() as client:
            each = [one(client, tenant) for tenant in self.keys for _ in range(clients)]
            return [told for some in await asyncio.gather(*each) for told in some]

    async def _open(
        self, rate: float, seconds: float, weights: Mapping[str, float], rng: random.Random
    ) -> list[Told]:
        names, shares = list(weights), list(weights.values())
        tasks: list[asyncio.Task[Told]] = []
        due = began = time.monotonic()
        async with self._client() as client:
            while due < began + seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                (tenant,) = rng.choices(names, shares)
                tasks.append(asyncio.create_task(self._ask(client, tenant)))
                due += rng.expovariate(rate)
            return list(await asyncio.gather(*tasks))

    async def _ask(self, client: httpx2.AsyncClient, tenant: str) -> Told:
        body = {"model": self.model[tenant], "prompt": PROMPT, "max_tokens": self.tokens}
        headers = {"Authorization": f"Bearer {self.keys[tenant]}"}
        began = time.monotonic()
        got = await client.post("/v1/completions", json=body, headers=headers)
        now = time.monotonic()
        code = "" if got.status_code == 200 else str(got.json()["error"]["code"])
        return Told(tenant, got.status_code, code, now, now - began)

    def _client(self) -> httpx2.AsyncClient:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=200)
        return httpx2.AsyncClient(
            base_url=self.url, timeout=_PATIENCE, limits=limits, trust_env=False
        )
