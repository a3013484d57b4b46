"""A TCP proxy in front of a real object store that answers as networks and stores do on a bad day.

It forwards whole HTTP requests and spoils what comes back, by the fault that holds when a request
arrives. It listens on loopback and runs on a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Fault = Literal[
    "none", "down", "silent", "5xx", "half 5xx", "403", "slow", "drip", "truncated", "short",
    "flipped", "other", "stale",
]  # fmt: skip
"""
down       connections are reset                 5xx, 403   answered so; half of them
silent     nothing is ever answered              slow       10 s before the first byte
drip       one byte a second                     truncated  the connection ends in the middle of a body
short      a whole answer with half a body       flipped    one bit of the body is another
other      the body of another object            stale      what is there is said not to be there
"""
SLOW = 10.0
_STATUS = {"5xx": b"503 Service Unavailable", "half 5xx": b"503 Slow Down", "403": b"403 Forbidden",
           "stale": b"404 Not Found"}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    at: float
    """`time.monotonic()`."""
    key: str
    fault: Fault


@dataclass
class FaultyStore:
    """Faults are set from any thread and hold for requests that come later."""

    upstream: int
    fault: Fault = "none"
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    spoiled: int = 0
    """Bodies that left here other than they came."""
    only: frozenset[str] | None = None
    """Keys that the fault is about; None: all."""
    delay: float = 0.0
    """Seconds before every answer that is not spoiled."""
    _bodies: dict[str, bytes] = field(default_factory=dict)
    _rng: random.Random = field(default_factory=lambda: random.Random(13))

    async def serve(self, ready: threading.Event, end: asyncio.Event) -> None:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await end.wait()
        server.close()
        # What hangs in an answer that never comes is left to the end of the loop.

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled by the end of the loop only, where asyncio would log it as an accident.
        ended = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*ended):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False if the connection is over."""
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(_length(head) or 0)
        key = head.split(b" ")[1].decode().rpartition("/")[2]
        fault = self._fault(key)
        self.asked.append(Asked(time.monotonic(), key, fault))
        if fault == "down":
            writer.transport.abort()
            return False
        if fault == "silent":
            await asyncio.sleep(3600)
        if fault in _STATUS:
            writer.write(_answer(_STATUS[fault], b"<Error/>"))
            await writer.drain()
            return True
        await asyncio.sleep(SLOW if fault == "slow" else self.delay)
        said, content = await self._forward(head + body)
        if not head.startswith(b"GET") or not said.startswith(b"HTTP/1.1 200"):
            writer.write(said + content)
            await writer.drain()
            return True
        self._bodies[key] = content
        return await self._spoil(writer, fault, key, said, content)

    def _fault(self, key: str) -> Fault:
        fault = self.fault if self.only is None or key in self.only else "none"
        return "none" if fault == "half 5xx" and self._rng.random() < 0.5 else fault

    async def _forward(self, request: bytes) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0 if request.startswith(b"HEAD") else _length(head)
            return head, await reader.readexactly(length or 0)
        finally:
            writer.close()

    async def _spoil(
        self, writer: asyncio.StreamWriter, fault: Fault, key: str, head: bytes, body: bytes
    ) -> bool:
        given, length = body, len(body)
        if fault == "drip":
            writer.write(head)
            for place in range(len(body)):
                writer.write(body[place : place + 1])
                await writer.drain()
                await asyncio.sleep(1.0)
            return True
        if fault == "flipped":
            place = self._rng.randrange(8 * len(body))
            spoilt = bytearray(body)
            spoilt[place // 8] ^= 1 << place % 8
            given = bytes(spoilt)
        elif fault == "other":
            given = self._rng.choice([other for at, other in self._bodies.items() if at != key])
            length = len(given)
        elif fault in ("truncated", "short"):
            given = body[: len(body) // 2]
            length = length if fault == "truncated" else len(given)
        self.spoiled += given != body
        writer.write(_with_length(head, length) + given)
        await writer.drain()
        return length == len(given)


@contextlib.contextmanager
def faulty_store(upstream: int) -> Iterator[FaultyStore]:
    """In front of the store at a port of this machine, until the end of the block."""
    store, ready, ends = FaultyStore(upstream), threading.Event(), []

    async def run() -> None:
        ends.append((asyncio.get_running_loop(), asyncio.Event()))
        await store.serve(ready, ends[0][1])

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield store
    finally:
        loop, end = ends[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(10)


def _length(head: bytes) -> int | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return None


def _with_length(head: bytes, length: int) -> bytes:
    lines = head.split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([kept[0], b"Content-Length: %d" % length, *kept[1:]])


def _answer(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body
