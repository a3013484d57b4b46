"""A backend behind its port, on a real loopback socket, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import uvicorn

from foreword.artifact import BaseRef, Digest
from foreword.serving.contract import Chunk, GenerateRequest
from foreword.serving.upstream.app import Engine, engine_app
from foreword.serving.upstream.client import HttpBackend, Timeouts
from foreword.serving.upstream.secret import Secret

SECRET = Secret("canary-5c1f0e-of-a-secret")
BASE = BaseRef("tiny", Digest.of(b"weights"), Digest.of(b"words"), "llama", 64)
FAST = Timeouts(connect=1.0, silence=1.0, answer=1.0, poll=0.02)


@dataclass
class Port:
    url: str
    server: uvicorn.Server
    ended: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """As a process that dies: connections are cut, whatever they do."""
        self.server.force_exit = self.server.should_exit = True
        self.ended.wait(10)


@contextmanager
def served(engine: Engine, beat: float = 0.1, port: int = 0) -> Iterator[Port]:
    app = engine_app(engine, BASE, SECRET, beat=beat)
    config = uvicorn.Config(app, "127.0.0.1", port, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    port_ = Port("", server)

    def run() -> None:
        asyncio.run(server.serve())
        port_.ended.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: server.started)
    port_.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield port_
    finally:
        port_.stop()
        thread.join(10)


@asynccontextmanager
async def reached(engine: Engine, beat: float = 0.1) -> AsyncIterator[HttpBackend]:
    """The backend as a gateway sees it."""
    with served(engine, beat) as port:
        async with HttpBackend(port.url, SECRET, BASE.fingerprint, FAST) as backend:
            yield backend


async def chunks_of(backend: HttpBackend | Engine, request: GenerateRequest) -> list[Chunk]:
    return [chunk async for chunk in backend.generate(request)]


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.005)


async def happens(true: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)
