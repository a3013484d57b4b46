"""Clients that hold what they have been given as long as they can, and good ones beside them."""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.gateway.edge_server import JSON, request
from tests.reliability.front_alone import Alone

Kind = Literal["headers", "body", "reading"]
TICK = 0.2
WORDS = 10
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


@dataclass
class Slow:
    """One of them: a byte each tick, sent or read."""

    kind: Kind
    sock: socket.socket
    began: float
    lasted: float | None = None
    """Seconds until the server had enough of it."""

    def tick(self) -> None:
        with suppress(OSError):
            self.sock.recv(1) if self.kind == "reading" else self.sock.send(b"x")


def begin(client: Alone, counts: dict[Kind, int]) -> list[Slow]:
    slow = []
    opening: dict[Kind, bytes] = {
        "headers": b"GET /v1/models HTTP/1.1\r\nHost: here\r\nX-Slow: ",
        "body": request("POST /v1/completions", client.authorized, JSON, "Content-Length: 100000"),
        "reading": client.endless(),
    }
    for kind, count in counts.items():
        for _ in range(count):
            sock = client.connect(buffer=4_096)
            sock.sendall(opening[kind])
            sock.setblocking(False)
            slow.append(Slow(kind, sock, time.monotonic()))
    return slow


def hold(front: Alone, slow: Sequence[Slow], most: float) -> list[dict[str, Any]]:
    """Be slow until the server has ended every one, or for `most` seconds; its facts meanwhile."""
    watch = select.poll()
    left = {one.sock.fileno(): one for one in slow}
    for number in left:
        watch.register(number, select.POLLRDHUP)
    end, tick, seen = time.monotonic() + most, 0.0, []
    while left and time.monotonic() < end:
        if time.monotonic() >= tick:
            tick = time.monotonic() + TICK
            seen.append(front.facts())
            for one in left.values():
                one.tick()
        for number, events in watch.poll(20):
            if events & _GONE:
                watch.unregister(number)
                one = left.pop(number)
                one.lasted = time.monotonic() - one.began
                one.sock.close()
    for one in left.values():
        one.sock.close()
    return seen


@dataclass
class Good:
    """Clients that ask, read and ask again; the times of their answers, in seconds."""

    client: Alone
    times: list[float] = field(default_factory=list)
    failed: int = 0

    @contextmanager
    def asking(self, clients: int = 4) -> Iterator[None]:
        done = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(done,)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join(20)

    def _ask(self, done: threading.Event) -> None:
        while not done.is_set():
            began = time.monotonic()
            try:
                with self.client.connect() as sock:
                    sock.sendall(self.client.stream(WORDS))
                    whole = b"".join(iter(lambda: sock.recv(65_536), b""))
            except OSError:
                whole = b""
            self.failed += whole.count(b'"word "') != WORDS or b"[DONE]" not in whole
            self.times.append(time.monotonic() - began)

    def p99(self) -> float:
        return sorted(self.times)[math.ceil(0.99 * len(self.times)) - 1]
