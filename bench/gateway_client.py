"""The lightest client that reads whole answers: HTTP/1.1 on kept connections, nothing parsed while timed.

What it measures is the server, so it does as little as possible itself. It reads responses with a length and
chunked ones, and looks for the first piece of a stream that has text.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

_TEXT = b'"content":"'
_GREETING = b'"role":"assistant"'
"""The first event of a stream has a role and no text."""


@dataclass(frozen=True)
class Timed:
    """Seconds from the moment a request was handed over."""

    first: float
    """Until the first piece with text; of a whole answer, until its end."""
    seconds: float


class Connection:
    """One kept connection; one request at a time."""

    def __init__(self, url: str, key: str) -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._key = key

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def ask(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> Timed:
        """
        Raises:
            RuntimeError: it was not answered.
        """
        request = self._request(json.dumps(body).encode(), path)
        began = time.perf_counter()
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"not answered: {head!r} {await self._reader.read(2_000)!r}")
        if b"content-length:" in head:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            await self._reader.readexactly(length)
            seconds = time.perf_counter() - began
            return Timed(seconds, seconds)
        return await self._stream(began)

    async def _stream(self, began: float) -> Timed:
        first, last = None, b""
        while size := int((await self._reader.readline()).strip(), 16):
            last = (await self._reader.readexactly(size + 2))[:-2]
            if first is None and _TEXT in last and _GREETING not in last:
                first = time.perf_counter() - began
        await self._reader.readline()
        seconds = time.perf_counter() - began
        if not last.endswith(b"data: [DONE]\n\n"):
            raise RuntimeError(f"a stream broke off: {last!r}")
        return Timed(seconds if first is None else first, seconds)

    def _request(self, body: bytes, path: str) -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def chat(model: str, text: str, tokens: int, *, stream: bool) -> dict[str, Any]:
    return {
        "model": model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens,
        "temperature": 0, "ignore_eos": True, "stream": stream,
    }  # fmt: skip


async def at_once(url: str, key: str, bodies: Sequence[dict[str, Any]]) -> list[Timed]:
    """All of them at the same moment, on connections that are open already."""
    connections = [Connection(url, key) for _ in bodies]
    async with asyncio.TaskGroup() as group:
        opened = [group.create_task(each.__aenter__()) for each in connections]
    del opened
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
