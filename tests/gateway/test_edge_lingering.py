"""What uvicorn writes in two calls goes out in one, and is never kept back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from foreword.serving.gateway.edge.lingering import LingeringTransport

HEAD, BODY = b"HTTP/1.1 200 OK\r\n\r\n", b"body"


class Socket(asyncio.Transport):
    """Remembers every write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.ended = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return 0


def after(*calls: Callable[[LingeringTransport], None]) -> tuple[Socket, int]:
    """The socket when the loop has come round, and how much waited before it did."""

    async def run() -> tuple[Socket, int]:
        socket = Socket()
        transport = LingeringTransport(socket, lambda: False, least=1, stall_seconds=60)
        for call in calls:
            call(transport)
        waiting = transport.get_write_buffer_size()
        await asyncio.sleep(0)
        transport.lost()
        return socket, waiting

    return asyncio.run(run())


def test_a_head_goes_out_with_what_follows_it() -> None:
    socket, waiting = after(
        lambda t: t.write(HEAD),
        lambda t: t.write(BODY),
        lambda t: t.write(b""),
        lambda t: t.write(BODY),
    )
    assert (socket.written, waiting) == ([HEAD + BODY, BODY], 0)


def test_a_head_alone_waits_no_longer_than_a_turn_of_the_loop() -> None:
    socket, waiting = after(lambda t: t.write(HEAD))
    assert (socket.written, waiting) == ([HEAD], len(HEAD))


def test_an_end_takes_the_head_along_and_a_reset_does_not() -> None:
    closed, _ = after(lambda t: t.write(HEAD), lambda t: t.close())
    assert (closed.written, closed.ended) == ([HEAD], "closed")
    aborted, _ = after(lambda t: t.write(HEAD), lambda t: t.abort(), lambda t: t.write(BODY))
    assert (aborted.written, aborted.ended) == ([], "aborted")
