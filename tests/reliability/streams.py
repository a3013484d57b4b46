"""Many streams at once over real sockets, some of whose clients go away in every way there is."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h11

from tests.gateway.edge_server import JSON, request
from tests.reliability.counting import NUMBERS, counted, spelling
from tests.reliability.served import NAMES, Served

TOKENS = 40
LONG_TOKENS = 400
"""Of those who go away: without them the engine would be busy for long."""
WAYS = ("before an answer", "reset", "end", "inside an event", "stall")
CHAT = "/v1/chat/completions"


@dataclass
class Stream:
    """One client. `leaves` is its way to go, None if it stays."""

    start: int
    model: str
    leaves: str | None = None
    after: int = 0
    """Bytes of the answer that it reads before."""
    left: float | None = None
    """When it had gone."""
    received: bytearray = field(default_factory=bytearray)

    def asked(self, server: Served) -> bytes:
        body = {
            "model": self.model, "stream": True, "temperature": 0,
            "messages": [{"role": "user", "content": spelling(self.start)}],
            "max_tokens": LONG_TOKENS if self.leaves else TOKENS,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        if self.leaves == "stall":
            body |= {"logprobs": True, "top_logprobs": 20}  # so much that it has to be felt
        headers = (server.authorized, JSON, "Connection: close")
        return request(f"POST {CHAT}", *headers, body=json.dumps(body).encode())


def crowd(count: int, leaving: float, seed: int) -> list[Stream]:
    """Every stream starts at another number; the first `leaving` of each hundred go away."""
    rng = random.Random(seed)
    starts = rng.sample(range(1, NUMBERS), count)
    made = [Stream(start, rng.choice(("base", *NAMES))) for start in starts]
    for place, stream in enumerate(rng.sample(made, round(count * leaving))):
        stream.leaves = WAYS[place % len(WAYS)]
        stream.after = rng.randint(1, 6_000)
    return made


def run(server: Served, streams: Sequence[Stream]) -> None:
    """All at once, until the last one is over."""

    async def together() -> None:
        await asyncio.gather(*(_follow(server, stream) for stream in streams))

    asyncio.run(together())


async def _follow(server: Served, stream: Stream) -> None:
    loop, sock = asyncio.get_running_loop(), socket.socket()
    if stream.leaves == "stall":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        await loop.sock_sendall(sock, stream.asked(server))
        if stream.leaves != "before an answer":
            await _read(loop, sock, stream)
        if stream.leaves:
            await _leave(loop, sock, stream)
    finally:
        sock.close()


async def _read(loop: asyncio.AbstractEventLoop, sock: socket.socket, stream: Stream) -> None:
    while not stream.leaves or len(stream.received) < stream.after:
        most = stream.after - len(stream.received) if stream.leaves else 65_536
        piece = await loop.sock_recv(sock, most)
        if not piece:
            return
        stream.received += piece


async def _leave(loop: asyncio.AbstractEventLoop, sock: socket.socket, stream: Stream) -> None:
    stream.left = time.monotonic()
    match stream.leaves:
        case "end":
            sock.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while await loop.sock_recv(sock, 65_536):
                    pass
        case "stall":
            # Until the server has enough of it: then there is an error, and not before.
            while not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                await asyncio.sleep(0.05)
        case _:
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def faults(server: Served, stream: Stream) -> list[str]:
    """What is wrong with what a client got that stayed to the end; nothing, if all is right."""
    try:
        status, body = _response(bytes(stream.received))
        events = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
        documents = [json.loads(event) for event in events[:-1]]
    except (h11.RemoteProtocolError, ValueError) as error:
        return [f"not a stream: {error}"]
    found = [] if status == 200 and events[-1] == b"[DONE]" else [f"it ended with {events[-1:]}"]
    choices = [choice for each in documents for choice in each["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    if text != counted(stream.start, TOKENS):
        found.append(f"after {stream.start} it said {text!r}")
    if [choice["finish_reason"] for choice in choices if choice["finish_reason"]] != ["length"]:
        found.append("it does not end once")
    if len({each["id"] for each in documents}) != 1:
        found.append("it has pieces of another answer")
    return found + _receipts(server, stream, documents)


def _receipts(server: Served, stream: Stream, documents: Sequence[Any]) -> list[str]:
    wanted = server.digests[stream.model] or None
    said = [each["foreword"]["digest"] for each in documents if "foreword" in each]
    if said != [wanted, wanted]:
        return [f"{stream.model} was answered by {said}"]
    used = documents[-1].get("usage") or {}
    return [] if used.get("completion_tokens") == TOKENS else [f"its usage is {used}"]


def _response(received: bytes) -> tuple[int, bytes]:
    """Status and body; an answer without its end is none."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("Host", "here")]))
    client.send(h11.EndOfMessage())
    client.receive_data(received)
    client.receive_data(b"")
    status, body = 0, bytearray()
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            raise h11.RemoteProtocolError(f"it breaks off with {event!r}")
    return status, bytes(body)
