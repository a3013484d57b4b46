"""A connection's end: whoever was refused can read why, and whoever does not read is not waited for.

A socket that is closed while bytes of the client are still on their way is reset by the kernel, and
the client may lose the answer that tells it what was wrong. So the end is said first, what still
comes is thrown away for a moment, and then the socket is closed. Closing waits until everything was
sent, which a client that does not read could put off for ever; here it has to make progress.

The head of an answer goes out with what follows it: they are two calls of uvicorn, and a call of the
kernel is dear, the more so where another thread waits for Python's lock.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LINGER_SECONDS = 1.0
"""In which a client that was refused may finish what it is sending."""
LINGER_BYTES = 4 << 20
"""More than that is not taken from it."""
_HEAD = b"HTTP/"


class LingeringTransport(asyncio.Transport):
    """What uvicorn sees of the socket. Once it is `leaving`, what comes is for `discard`."""

    def __init__(
        self,
        transport: asyncio.Transport,
        unread: Callable[[], bool],
        *,
        least: int,
        stall_seconds: float,
    ) -> None:
        """A client has to take `least` bytes in `stall_seconds`, or all that is left.

        `unread` says whether the client may still be sending what nobody will read.
        """
        super().__init__()
        self._real = transport
        self._unread = unread
        self._least = least
        self._stall_seconds = stall_seconds
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._held = b""
        """The head of an answer, until more of it comes or the loop's turn is over."""
        self._discarded = 0
        self.leaving = False

    def close(self) -> None:
        if self.leaving:
            return
        self._send_held()
        self.leaving = True
        self.watch()
        if self._unread() and self._real.can_write_eof():
            self._real.write_eof()
            self._real.resume_reading()
            self._linger = self._loop.call_later(LINGER_SECONDS, self._real.close)
        else:
            self._real.close()

    def discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > LINGER_BYTES:
            self.abort()

    def abort(self) -> None:
        """End it with a reset: neither we nor the kernel keep what was not sent yet."""
        self.leaving = True
        self._held = b""
        if (sock := self._real.get_extra_info("socket")) is not None:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._real.abort()

    def lost(self) -> None:
        """The socket is closed: no timer may hold on to it."""
        self.leaving = True
        self.unwatch()
        if self._linger is not None:
            self._linger.cancel()

    def watch(self) -> None:
        """From now on the client has to take what waits for it."""
        self.unwatch()
        waiting = self._real.get_write_buffer_size()
        self._watch = self._loop.call_later(self._stall_seconds, self._check, waiting)

    def unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _check(self, before: int) -> None:
        waiting = self._real.get_write_buffer_size()
        if waiting and before - waiting < self._least:
            self.abort()
        else:
            self.watch()

    def is_closing(self) -> bool:
        return self.leaving or self._real.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.leaving or not data:
            return
        if not self._held and bytes(data[: len(_HEAD)]) == _HEAD:
            self._held = bytes(data)
            self._loop.call_soon(self._send_held)
        else:
            held, self._held = self._held, b""
            self._real.write(held + data if held else data)

    def _send_held(self) -> None:
        held, self._held = self._held, b""
        if held and not self.leaving:
            self._real.write(held)

    def resume_reading(self) -> None:
        if not self.leaving:
            self._real.resume_reading()

    # Everything else is the socket's own.

    def pause_reading(self) -> None:
        self._real.pause_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._real.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._real.get_write_buffer_size() + len(self._held)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._real.set_write_buffer_limits(high, low)
