"""A gate that lets out whoever is inside and nobody in, once the server is going to stop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from foreword.serving.gateway.edge import refusals
from foreword.serving.gateway.edge.types import App, Receive, Scope, Send


@dataclass
class Gate:
    """Middleware. `draining` is for readiness too: a balancer should look elsewhere by then."""

    app: App
    inside: int = 0
    draining: bool = False
    _empty: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Raises:
            Overloaded: the gate is shut (`serving.draining`).
        """
        if self.draining:
            raise refusals.draining()
        self.inside += 1
        self._empty.clear()
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside -= 1
            if not self.inside:
                self._empty.set()

    def drain(self) -> None:
        """Take nothing new from now on."""
        self.draining = True

    async def wait(self, timeout: float) -> bool:
        """True once nobody is inside, False after `timeout` seconds."""
        if not self.inside:
            return True
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
