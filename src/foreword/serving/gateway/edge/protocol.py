"""uvicorn's HTTP/1.1 connection with deadlines and bounds that uvicorn itself does not have.

    accepted ──idle_seconds without a byte──▶ closed
       │ first byte of a request
       ▼
    head begun ──header_seconds──▶ 408, closed
       │ headers complete
       ▼
    with the application, whose middleware guards the rest ──▶ accepted again, or closed

Whoever does not read is felt from `write_buffer` bytes on and cut off after `stall_seconds`. Closing
lingers where the client may still be sending (`lingering`).
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from foreword.errors import ForewordError
from foreword.serving.gateway.edge import refusals
from foreword.serving.gateway.edge.heads import LimitedConnection
from foreword.serving.gateway.edge.lingering import LingeringTransport
from foreword.serving.gateway.edge.settings import EdgeSettings
from foreword.serving.gateway.edge.types import Refused
from foreword.serving.wire.problems import problem

_TURNED_AWAY = 0.1
"""Share of `connections` that may be open besides, to be told that there are too many."""


class EdgeProtocol(H11Protocol):
    """One connection. `protocol(limits)` gives the class that uvicorn makes them of."""

    limits: ClassVar[EdgeSettings]
    transport: LingeringTransport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: LimitedConnection = LimitedConnection(
            head_bytes=self.limits.header_bytes, headers=self.limits.headers
        )
        self.timeout_keep_alive = self.limits.idle_seconds  # type: ignore[assignment]
        self._head: asyncio.TimerHandle | None = None
        """Runs while a request's headers are coming in."""
        self._turned_away = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        _bound_buffers(transport, self.limits.write_buffer)
        lingering = LingeringTransport(
            transport,
            self._unread,
            least=self.limits.write_buffer,
            stall_seconds=self.limits.stall_seconds,
        )
        super().connection_made(lingering)
        too_many = len(self.connections) - self.limits.connections
        if too_many > max(1, _TURNED_AWAY * self.limits.connections):
            self.transport.abort()
        elif too_many > 0:
            self._refuse(refusals.too_many_connections(self.limits.connections))
        else:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport.lost()
        self._head_is_complete()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.leaving:
            self.transport.discard(data)
            return
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        if self.conn.their_state is h11.SEND_BODY:
            # It was answered before its body had come, which nobody reads any more.
            self.server_state.total_requests += 1
            self.transport.close()
            return
        super().on_response_complete()
        self._watch_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.leaving:
            self.transport.unwatch()

    def shutdown(self) -> None:
        if not self.transport.leaving:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """For what h11 does not take. Its own words are not passed on: they may quote a key."""
        large = self.conn.refused_status == 431
        self._refuse(refusals.large_head(self.limits) if large else refusals.bad_head())

    def _should_upgrade(self) -> bool:
        return False

    def _await_request(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            self.limits.idle_seconds, self.timeout_keep_alive_handler
        )

    def _watch_head(self) -> None:
        """After bytes came, or a request ended: is a head incomplete now?"""
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._head_is_complete()
        elif self._head is None and self.timeout_keep_alive_task is None:
            # uvicorn took the idle timer off when bytes came, were they only a line break.
            self._head = self.loop.call_later(self.limits.header_seconds, self._head_is_late)

    def _head_is_complete(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _head_is_late(self) -> None:
        self._refuse(refusals.slow_head(self.limits.header_seconds))

    def _unread(self) -> bool:
        """Whether the client may still be sending: a body, or a request that was not taken."""
        return self._turned_away or self.conn.their_state is h11.SEND_BODY

    def _refuse(self, error: ForewordError) -> None:
        """Answer without the application, and leave."""
        if self.transport.leaving:
            return
        self._turned_away = True
        self._head_is_complete()
        self._unset_keepalive_if_required()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()  # two answers in one would be neither
                return
        told = problem(error)
        self.transport.write(refusals.response(told))
        self.transport.close()
        self.report(error.code, told.status)

    def report(self, code: str, status: int) -> None:
        """Hear of a request that was turned away here."""


def protocol(
    limits: EdgeSettings, refused: Refused = lambda code, status: None
) -> type[EdgeProtocol]:
    """What to give `uvicorn.Config` as `http`."""

    class Limited(EdgeProtocol):
        def report(self, code: str, status: int) -> None:
            refused(code, status)

    Limited.limits = limits
    return Limited


def _bound_buffers(transport: asyncio.Transport, size: int) -> None:
    """Let a client that does not read be felt after `size` bytes here and as many in the kernel.

    Left alone, the kernel would take up to 4 MiB of an answer nobody reads (tcp_wmem).
    """
    # A quarter is left for the piece that goes over the mark.
    transport.set_write_buffer_limits(high=size * 3 // 4)
    if (sock := transport.get_extra_info("socket")) is not None:
        # Linux doubles what it is given, for its own bookkeeping (socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size // 2)
