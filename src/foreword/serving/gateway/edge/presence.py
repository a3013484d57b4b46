"""A request lives as long as its client listens.

uvicorn tells an application that its client is gone only if it asks. Here nobody has to: when the
connection is lost, or was aborted because its client did not read, the task of the request is
cancelled, and everything it holds is given back by the `finally` it stands in.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from foreword.serving.gateway.edge.types import App, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Presence:
    """Middleware; it wants the body to be there already (`body.Bodies`)."""

    app: App

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _Request(await receive(), send)
        watcher = asyncio.create_task(request.watch(receive))
        try:
            await self.app(scope, request.receive, request.send)
        except asyncio.CancelledError:
            if not request.cancelled:
                raise
        finally:
            watcher.cancel()
            if request.cancelled:
                request.task.uncancel()


class _Request:
    """What the application sees of its client."""

    def __init__(self, first: Message, send: Send) -> None:
        current = asyncio.current_task()
        if current is None:
            raise RuntimeError("a request is handled in a task")
        self.task = current
        self.cancelled = False
        self._first: Message | None = first
        self._send = send
        self._answered = False
        self._gone = asyncio.Event()

    async def watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        # After an answer it means only that there is nothing more to say.
        if not self._answered:
            self.cancelled = True
            self.task.cancel()

    async def receive(self) -> Message:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._answered = True
        await self._send(message)
