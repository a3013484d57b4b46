"""A request's body, whole and in time, before anybody works on it.

The application gets it in one piece. So a client that sends slowly holds no place that work needs, and
what is left to `receive` afterwards is one thing: that the client is gone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from foreword.serving.gateway.edge import refusals
from foreword.serving.gateway.edge.settings import EdgeSettings
from foreword.serving.gateway.edge.types import (
    App,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    all_of,
)

_JSON = re.compile(rb'application/json(?:[ \t]*;[ \t]*charset="?utf-8"?)?', re.IGNORECASE)


def has_body(headers: Headers) -> bool:
    """Whether a body is announced (RFC 9112, section 6)."""
    if all_of(headers, b"transfer-encoding"):
        return True
    return any(length.strip(b"0") for length in all_of(headers, b"content-length"))


def require_wanted(headers: Headers, most: int) -> None:
    """Refuse a body by what is announced, before a byte of it is read.

    Raises:
        UsageError: it is longer than `most` bytes, encoded, or no JSON.
    """
    if not has_body(headers):
        return
    if any(int(length) > most for length in all_of(headers, b"content-length")):
        raise refusals.large_body(most)
    if any(value.lower() != b"identity" for value in all_of(headers, b"content-encoding")):
        raise refusals.encoded_body()
    kinds = all_of(headers, b"content-type")
    if len(kinds) != 1 or not _JSON.fullmatch(kinds[0]):
        raise refusals.other_body()


@dataclass
class Room:
    """Bytes of bodies that are in memory, of all requests together."""

    most: int
    used: int = 0

    def take(self, size: int) -> None:
        if self.used + size > self.most:
            raise refusals.no_room_for_bodies()
        self.used += size

    def give_back(self, size: int) -> None:
        self.used -= size


@dataclass
class Bodies:
    """Middleware: `app` is called once the body is here."""

    app: App
    settings: EdgeSettings
    room: Room = field(init=False)

    def __post_init__(self) -> None:
        self.room = Room(self.settings.bodies_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Raises:
            UsageError: the body is too large, encoded, or no JSON.
            DeadlineExceeded: it did not come in time.
            Overloaded: there is no room for it now.
        """
        require_wanted(scope["headers"], self.settings.body_bytes)
        body = bytearray()
        try:
            if await self._read(receive, body):
                await self.app(scope, _again(bytes(body), receive), send)
        finally:
            self.room.give_back(len(body))

    async def _read(self, receive: Receive, body: bytearray) -> bool:
        """Fill `body`; False if the client went away before its end."""
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        return False
                    self._add(body, message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError as error:
            raise refusals.slow_body(self.settings.body_seconds) from error
        return True

    def _add(self, body: bytearray, piece: bytes) -> None:
        if len(body) + len(piece) > self.settings.body_bytes:
            raise refusals.large_body(self.settings.body_bytes)
        self.room.take(len(piece))
        body += piece


def _again(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A `receive` that begins with the whole body."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
