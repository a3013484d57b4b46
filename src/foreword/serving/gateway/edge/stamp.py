"""What every answer carries, and what happens to a request whose handler broke.

A request's id is always our own: two requests never share one, whatever clients send. Theirs is given
back beside it, if it can be written anywhere without harm.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from foreword.errors import ForewordError
from foreword.serving.gateway.edge import refusals
from foreword.serving.gateway.edge.body import has_body
from foreword.serving.gateway.edge.types import (
    App,
    Headers,
    Message,
    Receive,
    Refused,
    Scope,
    Send,
    all_of,
)
from foreword.serving.gateway.ids import new_id

REQUEST_ID = "foreword.request_id"
"""Key of the scope: a text that names this request and no other."""

_log = logging.getLogger(__name__)
_HARMLESS = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass
class Stamp:
    """The outermost middleware: whatever the others raise is told here, and counted."""

    app: App
    refused: Refused
    closing: Callable[[], bool]
    """Whether connections end after their answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = f"req_{new_id()}"
        call = _Call(receive, send, self._headers(own, scope["headers"]))
        try:
            await self.app({**scope, REQUEST_ID: own}, call.receive, call.send)
        except Exception as error:
            if not isinstance(error, ForewordError):
                _log.error("%s broke: %s\n%s", own, type(error).__name__, where(error))
            if not call.started:
                self.refused(*await self._refuse(scope, call, error))
            # Else the server sees an answer without an end, and cuts it.

    async def _refuse(self, scope: Scope, call: _Call, error: Exception) -> tuple[str, int]:
        more = {}
        if has_body(scope["headers"]) and not call.read:
            more["connection"] = "close"
        return await refusals.refuse(call.send, error, more)

    def _headers(self, own: str, headers: Headers) -> dict[bytes, bytes]:
        stamped = {name.encode(): value.encode() for name, value in refusals.SAFE_HEADERS.items()}
        stamped[b"x-request-id"] = own.encode()
        theirs = all_of(headers, b"x-request-id")
        if len(theirs) == 1 and _HARMLESS.fullmatch(theirs[0]):
            stamped[b"x-client-request-id"] = theirs[0]
        if self.closing():
            stamped[b"connection"] = b"close"
        return stamped


@dataclass
class _Call:
    """One request's two ends, and how far they got."""

    from_client: Receive
    to_client: Send
    headers: dict[bytes, bytes]
    read: bool = False
    """Nothing of the request is still to come."""
    started: bool = False

    async def receive(self) -> Message:
        message = await self.from_client()
        self.read = self.read or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            given = [pair for pair in message.get("headers", ()) if pair[0] not in self.headers]
            message = {**message, "headers": [*given, *self.headers.items()]}
        await self.to_client(message)


def where(error: BaseException) -> str:
    """Where it was raised, without what it says: that may quote a prompt or a key."""
    return "".join(traceback.format_tb(error.__traceback__)).rstrip()
