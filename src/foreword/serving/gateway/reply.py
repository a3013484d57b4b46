"""The answer to one HTTP request as it goes out: one JSON document, or events, or a problem.

A problem before the first byte has a status of its own. After it only an event can tell; the stream
then ends without `[DONE]`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from foreword.errors import ForewordError
from foreword.serving.gateway.edge.types import Send
from foreword.serving.wire import sse
from foreword.serving.wire.problems import problem

_log = logging.getLogger(__name__)
GONE = 499
"""Status of a request whose client went away, as nginx counts it; nobody is sent it."""


class Reply:
    """Says at the end with which `status` and `code` the request ended, whatever happened to it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False
        self.status, self.code = GONE, "request.client_gone"

    async def json(
        self, value: Mapping[str, Any], headers: Mapping[str, str] | None = None, status: int = 200
    ) -> None:
        await self._whole(status, value, headers or {})
        self.status, self.code = status, ""

    async def event(self, value: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        """One more event; the first one sends `headers` before it."""
        if not self._begun:
            await self._start(200, {**headers, "content-type": "text/event-stream"})
        await self._part(sse.event(value))

    async def done(self) -> None:
        """The end of a stream of events."""
        await self._part(sse.DONE, last=True)
        self.status, self.code = 200, ""

    async def fail(
        self,
        error: BaseException,
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
    ) -> None:
        """Tell what went wrong; nothing of an error that is not ours gets out.

        `status`: where HTTP has one for a case that the error itself does not know.
        """
        told = problem(error)
        if not isinstance(error, ForewordError):
            _log.error("a request broke", exc_info=error)
        self.status, self.code = status or told.status, told.body["error"]["code"]
        if self._begun:
            await self._part(sse.error(told.body), last=True)
        else:
            await self._whole(self.status, told.body, {**told.headers, **(headers or {})})

    async def _whole(
        self, status: int, value: Mapping[str, Any], headers: Mapping[str, str]
    ) -> None:
        body = sse.to_json(value)
        length = {"content-length": str(len(body)), "content-type": "application/json"}
        await self._start(status, {**headers, **length})
        await self._part(body, last=True)

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self._begun = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()],
            }
        )

    async def _part(self, body: bytes, *, last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})
