"""The chunks of one request as lines over ASGI: a line for each chunk, an error as the last one.

While nothing is to be said, an empty line says that the engine is well. One that steps no more says
nothing, and whoever listens gives it up. A client that goes away ends the request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from starlette.types import Receive, Scope, Send

from foreword.errors import ForewordError
from foreword.serving.contract import Backend, Chunk, GenerateRequest
from foreword.serving.upstream.chunk_json import chunk_to_json
from foreword.serving.upstream.documents import to_bytes
from foreword.serving.upstream.errors_json import error_to_json

_log = logging.getLogger(__name__)
MEDIA_TYPE = b"application/x-ndjson"


class Lines:
    """An ASGI response that generates while it is sent."""

    def __init__(self, backend: Backend, request: GenerateRequest, beat: float) -> None:
        """`beat`: seconds of silence after which an empty line is sent."""
        self._backend, self._request, self._beat = backend, request, beat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        saying = asyncio.create_task(self._say(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            ended, _ = await asyncio.wait({saying, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (saying, leaving):
                task.cancel()
            # Waited for: what the request holds is given back before its connection is forgotten.
            await asyncio.gather(saying, leaving, return_exceptions=True)
        if saying in ended:
            saying.result()

    async def _say(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", MEDIA_TYPE), (b"cache-control", b"no-store")],
            }
        )
        async with aclosing(self._lines()) as lines:
            async for line in lines:
                await send({"type": "http.response.body", "body": line + b"\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _lines(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    if chunk is not None:
                        yield to_bytes(chunk_to_json(chunk))
                    elif self._backend.health().state in ("ready", "draining"):
                        yield b""
        except Exception as error:
            if not isinstance(error, ForewordError):
                _log.error("a request broke", exc_info=error)
            yield to_bytes(error_to_json(error))

    async def _chunks(self) -> AsyncGenerator[Chunk | None, None]:
        """The chunks, and None after each `beat` without one."""
        stream = cast("AsyncGenerator[Chunk, None]", self._backend.generate(self._request))
        async with aclosing(stream):
            while True:
                coming = asyncio.ensure_future(anext(stream, None))
                try:
                    while not (await asyncio.wait({coming}, timeout=self._beat))[0]:
                        yield None
                    chunk = coming.result()
                finally:
                    coming.cancel()
                    # Until it has ended the stream cannot be closed.
                    await asyncio.gather(coming, return_exceptions=True)
                if chunk is None:
                    return
                yield chunk


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
