"""The lightest client that reads whole answers: HTTP/1.1 on kept connections, nothing parsed while timed.

What it measures is the server, so it does as little as possible itself. It reads responses with a length and
chunked ones, and looks for the first piece of a stream that has text.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

SETTLED = 0.02
"""Seconds in which a server has done all it does for a connection that is opened."""
_LAST_CHUNK = b"0\r\n\r\n"
_TEXT = b'"content":"'
_GREETING = b'"role":"assistant"'
"""The first event of a stream has a role and no text."""


@dataclass(frozen=True)
class Timed:
    """Seconds from the moment a request was handed over."""

    first: float
    """Until the first piece with text; of a whole answer, until its end."""
    seconds: float


class Connection(asyncio.Protocol):
    """One kept connection; one request at a time. While it waits it only notes what came, and when."""

    def __init__(self, url: str, key: str) -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._key = key
        self._came: list[tuple[float, bytes]] = []
        self._whole: asyncio.Future[None]
        self._missing = -1

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: self, self._host, self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transport.close()

    async def ask(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> Timed:
        """
        Raises:
            RuntimeError: it was not answered.
        """
        request = self._request(json.dumps(body).encode(), path)
        self._came, self._whole = [], asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self._transport.write(request)
        await self._whole
        return self._timed(began)

    def data_received(self, data: bytes) -> None:
        if not self._came:
            self._missing = _size(data)
        self._came.append((time.perf_counter(), data))
        self._missing -= len(data)
        if self._missing == 0 or data.endswith(_LAST_CHUNK):
            self._whole.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "_whole") and not self._whole.done():
            self._whole.set_exception(RuntimeError(f"an answer broke off: {self._said()[-500:]!r}"))

    def _said(self) -> bytes:
        return b"".join(data for _, data in self._came)

    def _timed(self, began: float) -> Timed:
        said, ended = self._said(), self._came[-1][0] - began
        if not said.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"not answered: {said[:2_000]!r}")
        if not said.endswith(_LAST_CHUNK):
            return Timed(ended, ended)
        if not said.endswith(b"data: [DONE]\n\n\r\n" + _LAST_CHUNK):
            raise RuntimeError(f"a stream broke off: {said[-500:]!r}")
        for at, data in self._came:
            if any(_TEXT in event and _GREETING not in event for event in data.split(b"\n\n")):
                return Timed(at - began, ended)
        return Timed(ended, ended)

    def _request(self, body: bytes, path: str) -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def _size(beginning: bytes) -> int:
    """Bytes of an answer that has a length, head included; -1 of one in chunks."""
    head, _, after = beginning.partition(b"\r\n\r\n")
    _, named, length = head.partition(b"content-length:")
    return len(beginning) - len(after) + int(length.split(b"\r\n")[0]) if named else -1


def chat(model: str, text: str, tokens: int, *, stream: bool) -> dict[str, Any]:
    return {
        "model": model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens,
        "temperature": 0, "ignore_eos": True, "stream": stream,
    }  # fmt: skip


async def at_once(url: str, key: str, bodies: Sequence[dict[str, Any]]) -> list[Timed]:
    """All of them at the same moment, on connections that the server has accepted already."""
    connections = [Connection(url, key) for _ in bodies]
    async with asyncio.TaskGroup() as group:
        opened = [group.create_task(each.__aenter__()) for each in connections]
    del opened
    await asyncio.sleep(SETTLED)
    try:
        return await asyncio.gather(
            *(each.ask(body) for each, body in zip(connections, bodies, strict=True))
        )
    finally:
        for each in connections:
            await each.__aexit__(None, None, None)


async def as_many_as_go(
    url: str, key: str, bodies: Sequence[dict[str, Any]], concurrency: int, seconds: float
) -> tuple[list[Timed], float]:
    """In turn, `concurrency` at the same time; what came, and the seconds it took."""
    done: list[Timed] = []
    began = time.perf_counter()

    async def worker(number: int) -> None:
        async with Connection(url, key) as connection:
            turn = number
            while time.perf_counter() - began < seconds:
                done.append(await connection.ask(bodies[turn % len(bodies)]))
                turn += concurrency

    async with asyncio.TaskGroup() as group:
        for number in range(concurrency):
            group.create_task(worker(number))
    return done, time.perf_counter() - began
