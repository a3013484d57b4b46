"""A small application behind the real edge, on a real loopback socket, and clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from foreword.errors import AuthError
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.edge import PRINCIPAL, Edge, EdgeSettings, edge, uvicorn_config
from foreword.serving.gateway.edge.types import App, Receive, Scope, Send

KEY = "canary-4f1c9a-of-a-key"
AUTHORIZED = f"Authorization: Bearer {KEY}"
JSON = "Content-Type: application/json"


def believe(header: str | None) -> Principal:
    """`KEY` is acme's, `KEY-x` is x's; nothing else is a key."""
    key = (header or "").removeprefix("Bearer ")
    if key != KEY and not key.startswith(f"{KEY}-"):
        raise AuthError("a key is needed", code="auth.missing")
    return Principal(key.removeprefix(KEY).lstrip("-") or "acme", "k_1", frozenset({"generate"}))


@dataclass
class Little:
    """`/v1/echo` tells what it was given, `/v1/stream` never ends, `/v1/hang` never answers."""

    scopes: list[Scope] = field(default_factory=list)
    cancelled: int = 0
    sent: int = 0
    """Bytes that `/v1/stream` was allowed to send."""
    piece: bytes = b"data: " + b"x" * 8_000 + b"\n\n"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        self.scopes.append(scope)
        try:
            await self._answer(scope, receive, send)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["path"]:
            case "/v1/hang":
                await asyncio.sleep(3_600)
            case "/v1/stream":
                await self._stream(send)
            case "/v1/break":
                raise ValueError(f"this quotes a key: {KEY}")
            case "/v1/large":
                await say(send, {"text": "y" * 3_000_000})
            case _:
                body = (await receive())["body"]
                principal = scope.get(PRINCIPAL)
                await say(send, {"method": scope["method"], "path": scope["path"],
                                 "tenant": principal and principal.tenant,
                                 "got": body.decode()[:100], "size": len(body)})  # fmt: skip

    async def _stream(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            await send({"type": "http.response.body", "body": self.piece, "more_body": True})
            self.sent += len(self.piece)
            await asyncio.sleep(0)


async def say(send: Send, content: dict[str, Any], status: int = 200) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


@dataclass
class Client:
    port: int

    def connect(self, *, buffer: int | None = None) -> socket.socket:
        """`buffer`: receive buffer in bytes, for a client that is not going to read."""
        sock = socket.socket()
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def ask(self, head: str, *headers: str, body: bytes = b"") -> Answer:
        """One request on a connection of its own; `head` is method and target."""
        with self.connect() as sock:
            sock.sendall(request(head, *headers, body=body))
            return answer(sock, head.startswith("HEAD"))


@dataclass
class Served(Client):
    edge: Edge
    server: uvicorn.Server
    loop: asyncio.AbstractEventLoop
    refused: list[tuple[str, int]]
    """What was reported of requests that were turned away."""

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)


@contextlib.contextmanager
def served(app: App, settings: EdgeSettings | None = None) -> Iterator[Served]:
    """The application behind the edge, in a thread, until the end of the block."""
    refused: list[tuple[str, int]] = []
    guarded = edge(app, settings or EdgeSettings(), believe, lambda *told: refused.append(told))
    config = uvicorn_config(guarded, host="127.0.0.1", port=0, grace=1)
    with running(config) as (server, loop):
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(port, guarded, server, loop, refused)


@contextlib.contextmanager
def running(
    config: uvicorn.Config,
) -> Iterator[tuple[uvicorn.Server, asyncio.AbstractEventLoop]]:
    server = uvicorn.Server(config)
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield server, loops[0]
    finally:
        server.should_exit = True
        thread.join(20)


def request(head: str, *headers: str, body: bytes = b"") -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{head} HTTP/1.1", "Host: here", *headers, *length, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def answer(sock: socket.socket, bodiless: bool = False) -> Answer:
    """Read one response and not a byte more; the connection stays open."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += _some(sock, 1)
    status, *lines = head.decode("latin-1").split("\r\n")[:-2]
    pairs = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in pairs}
    body, length = b"", 0 if bodiless else int(headers.get("content-length", 0))
    while len(body) < length:
        body += _some(sock, length - len(body))
    return Answer(int(status.split()[1]), headers, body)


def closed_after(sock: socket.socket) -> float:
    """Seconds until the server ends the connection; what it says before is thrown away."""
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while sock.recv(65_536):
            pass
    return time.monotonic() - began


def sending_ends_after(sock: socket.socket, piece: bytes, pause: float, most: float) -> float:
    """Seconds for which the server lets a client go on sending; `most` if for longer than that."""
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - began < most:
            sock.sendall(piece)
            time.sleep(pause)
    return time.monotonic() - began


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.005)


def _some(sock: socket.socket, most: int) -> bytes:
    received = sock.recv(most)
    if not received:
        raise ConnectionError("the server closed the connection before its answer was complete")
    return received
