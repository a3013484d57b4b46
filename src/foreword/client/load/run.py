"""Carries a plan out: closed loop or open loop, one event loop, answers checked one by one.

In an open loop a request's time begins at its moment, also if it had to wait for a free place: a server
that falls behind is not asked more kindly for it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2

from foreword.client.address import Address
from foreword.client.answers import Answer, Reading, read_refusal, read_whole
from foreword.client.load.plan import Asked, Plan, arrivals, asks
from foreword.client.receipt import Receipt, require_headers
from foreword.errors import ServingError

_PATH = "chat/completions"


@dataclass(frozen=True)
class Outcome:
    """What became of one request. Times are seconds."""

    model: str
    stream: bool
    ended: float
    """After the beginning of the run."""
    seconds: float
    first_token: float | None = None
    tokens: int = 0
    code: str = ""
    """Of the error; empty if it was answered."""
    receipt: Receipt | None = None
    wrong: str = ""
    """What is wrong with its receipt."""


@dataclass(frozen=True)
class Ran:
    outcomes: tuple[Outcome, ...]
    """Of every request that was begun, in the order of their ends."""
    unsent: int = 0
    """Requests of an open loop that were due and had no free place before the time was over."""


async def run(address: Address, plan: Plan) -> Ran:
    """Carry it out. What was begun in time is waited for."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=plan.concurrency)
    async with httpx2.AsyncClient(
        base_url=f"{address.url}/v1/", headers=address.headers, timeout=plan.timeout,
        limits=limits, trust_env=False,
    ) as client:  # fmt: skip
        return await _Run(client, plan).all()


class _Run:
    def __init__(self, client: httpx2.AsyncClient, plan: Plan) -> None:
        self._client, self._plan = client, plan
        self._outcomes: list[Outcome] = []
        self._unsent = 0
        self._began = time.monotonic()
        self._work: Iterator[tuple[float, Asked]] = zip(arrivals(plan), asks(plan), strict=False)

    async def all(self) -> Ran:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.concurrency):
                group.create_task(self._worker())
        return Ran(tuple(self._outcomes), self._unsent + self._still_due())

    async def _worker(self) -> None:
        """Takes the next request and waits for its moment, as long as there is time."""
        for at, asked in self._work:
            moment = at if self._plan.rate is not None else self._now()
            if moment >= self._plan.seconds:
                return
            if self._now() >= self._plan.seconds:
                self._unsent += 1
                return
            await asyncio.sleep(max(0.0, moment - self._now()))
            self._outcomes.append(await self._one(asked, moment))

    def _still_due(self) -> int:
        if self._plan.rate is None:
            return 0
        rest = itertools.takewhile(lambda work: work[0] < self._plan.seconds, self._work)
        return sum(1 for _ in rest)

    async def _one(self, asked: Asked, moment: float) -> Outcome:
        first: float | None = None
        try:
            if asked.stream:
                answer, came = await self._streamed(asked)
                first = None if came is None else came - moment
            else:
                answer = await self._whole(asked)
        except ServingError as e:
            return self._failed(asked, moment, e.code)
        except httpx2.HTTPError as e:
            return self._failed(asked, moment, f"client.{type(e).__name__}")
        ended = self._now()
        return Outcome(
            asked.model, asked.stream, ended, ended - moment, first, answer.tokens,
            receipt=answer.receipt, wrong=answer.receipt.differs(asked.model),
        )  # fmt: skip

    def _failed(self, asked: Asked, moment: float, code: str) -> Outcome:
        ended = self._now()
        return Outcome(asked.model, asked.stream, ended, ended - moment, code=code)

    async def _whole(self, asked: Asked) -> Answer:
        response = await self._client.post(_PATH, json=asked.body(self._plan.max_tokens))
        if response.status_code != 200:
            raise read_refusal(response.status_code, response.content)
        answer = read_whole(response.content)
        require_headers(answer.receipt, response.headers)
        return answer

    async def _streamed(self, asked: Asked) -> tuple[Answer, float | None]:
        """The answer, and when its first text came."""
        reading, first = Reading(), None
        body = asked.body(self._plan.max_tokens)
        async with self._client.stream("POST", _PATH, json=body) as response:
            if response.status_code != 200:
                raise read_refusal(response.status_code, await response.aread())
            async for line in response.aiter_lines():
                if reading.take(line) and first is None:
                    first = self._now()
        answer = reading.answer()
        require_headers(answer.receipt, response.headers)
        return answer, first

    def _now(self) -> float:
        """Seconds after the beginning."""
        return time.monotonic() - self._began
