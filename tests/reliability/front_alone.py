"""The front door in a process of its own, so that its clients do not share its interpreter.

    python -m tests.reliability.front_alone '{"header_seconds": 1}'

It says its port and a key in one line, and ends when its input is closed. `/v1/facts` tells what a client
cannot see.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import uvicorn

from foreword.serving.gateway.edge import EdgeSettings, uvicorn_config
from foreword.serving.gateway.edge.lag import Lags
from foreword.serving.gateway.edge.types import App, Receive, Scope, Send
from foreword.serving.gateway.prompting import Prompter
from tests.gateway.edge_server import JSON, Answer, Client, request, say
from tests.reliability.front_made import ENDLESS, Made, made
from tests.reliability.report import ROOT


@dataclass
class Facts:
    """In front of everything: the edge is what is looked at."""

    app: App
    made: Made
    lags: Lags = field(default_factory=lambda: Lags(interval=0.01, window=60.0))
    busy: Lags = field(default_factory=lambda: Lags(interval=0.01, window=60.0))
    """The lags as far as the loop itself was at work: what else runs on the machine is left out."""
    server: uvicorn.Server | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") == "/v1/facts":
            await say(send, self._facts())
        else:
            await self.app(scope, receive, send)

    def _facts(self) -> dict[str, Any]:
        if self.server is None:
            raise RuntimeError("it is not running yet")
        connections = self.server.server_state.connections
        process, used = psutil.Process(), resource.getrusage(resource.RUSAGE_SELF)
        return {
            "connections": len(connections),
            "write_buffer": max(c.transport.get_write_buffer_size() for c in connections),
            "rss": process.memory_info().rss,
            "cpu": used.ru_utime + used.ru_stime,
            "descriptors": process.num_fds(),
            "tasks": len(asyncio.all_tasks()),
            "running": self.made.backend.running,
            "lag_p99": self.lags.quantile(0.99),
            "busy_p99": self.busy.quantile(0.99),
            "peak": _peak(),
        }

    async def measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, used = loop.time() + self.lags.interval, time.thread_time()
            await asyncio.sleep(self.lags.interval)
            late = loop.time() - due
            self.lags.add(late)
            self.busy.add(min(late, time.thread_time() - used))


def _peak() -> int:
    """The most bytes of memory since the last time."""
    status = Path("/proc/self/status").read_text()
    found = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return int(found.split()[1]) * 1024


async def serve(settings: EdgeSettings, *, reads_anything: bool) -> None:
    front = made(settings)
    if reads_anything:
        Prompter._require_short = lambda prompter, texts: None  # type: ignore[method-assign]
    facts = Facts(front.edge.entrance, front)
    guarded = replace(front.edge, entrance=facts)
    server = uvicorn.Server(uvicorn_config(guarded, host="127.0.0.1", port=0, grace=1))
    facts.server = server
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    gc.freeze()  # as `foreword serve` does
    measuring = asyncio.create_task(facts.measure())
    print(json.dumps([server.servers[0].sockets[0].getsockname()[1], front.key]), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await running
    measuring.cancel()


@dataclass
class Alone(Client):
    key: str
    process: int

    @property
    def authorized(self) -> str:
        return f"Authorization: Bearer {self.key}"

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self.ask("GET /v1/facts").json
        return facts

    def post(self, path: str, body: bytes) -> Answer:
        return self.ask(f"POST {path}", self.authorized, JSON, body=body)

    def stream(self, tokens: int) -> bytes:
        """The bytes of a request whose answer is so many events, and then the connection ends."""
        asked = {
            "model": "base",
            "messages": [{"role": "user", "content": "Say it."}],
            "max_tokens": tokens,
            "stream": True,
        }
        body = json.dumps(asked).encode()
        ending = "Connection: close"
        return request("POST /v1/chat/completions", self.authorized, JSON, ending, body=body)

    def endless(self) -> bytes:
        return self.stream(ENDLESS)


@contextlib.contextmanager
def front_alone(settings: Mapping[str, Any], *, reads_anything: bool = False) -> Iterator[Alone]:
    """The process, until the end of the block. `reads_anything`: prompts of every length."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.reliability.front_alone", json.dumps(settings)]
        + ["reads anything"] * reads_anything,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("it was asked for both")
    try:
        port, key = json.loads(process.stdout.readline())
        yield Alone(port, key, process.pid)
    finally:
        process.stdin.close()
        process.wait(20)


if __name__ == "__main__":
    asyncio.run(serve(EdgeSettings(**json.loads(sys.argv[1])), reads_anything=len(sys.argv) > 2))
