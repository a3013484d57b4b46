"""The life of a server process: listen, say so, serve until told to stop, let out who is inside, end.

SIGTERM or SIGINT ─▶ not ready, nothing new ─▶ grace for who is inside ─▶ the rest is told ─▶ end
a second one      ─▶ end at once
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import uvicorn

from foreword.errors import ConfigError

TOLD = 5.0
"""Seconds in which clients that were cut off are told so."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
Say = Callable[[str], None]


class Gated(Protocol):
    """Who is inside, and a way to let nobody in any more; the edge's `Gate` is one."""

    @property
    def inside(self) -> int: ...

    def drain(self) -> None:
        """Take nothing new from now on."""
        ...

    async def wait(self, timeout: float) -> bool:
        """True once nobody is inside, False after `timeout` seconds."""
        ...


class Inside(Protocol):
    """What a process runs."""

    @property
    def gate(self) -> Gated: ...

    def cut_off(self) -> None:
        """End what is still being answered, with an error."""
        ...


@dataclass(frozen=True)
class Door:
    """One address and what answers there."""

    socket: socket.socket
    config: uvicorn.Config

    @property
    def url(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def bind(host: str, port: int, option: str) -> socket.socket:
    """An address of our own; nobody can connect before the server is ready.

    Raises:
        ConfigError: it cannot be had (`serve.address`).
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
        except OSError:
            made.close()
            raise
    except OSError as e:
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({e.strerror or e}); choose another {option}",
            code="serve.address",
        ) from e
    return made


async def serve(
    house: Inside, doors: Sequence[Door], grace: float, ready: Callable[[], None], say: Say
) -> None:
    """Serve until a signal; gives back when everything is closed. `ready` is called once it listens."""
    servers = [_Server(door.config) for door in doors]
    tasks = [
        asyncio.create_task(server.serve(sockets=[door.socket]))
        for server, door in zip(servers, doors, strict=True)
    ]
    with _signals(say) as told:
        try:
            await _until(lambda: all(server.started for server in servers), tasks)
            # What is there now stays. Without it the collector looks through all of a model and its
            # libraries, a tenth of a second in which nobody is answered, whenever a large body was read.
            gc.collect()
            gc.freeze()
            ready()
            await _first(told.wait(), *tasks)
            await _let_out(house, grace, say)
        finally:
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*tasks, return_exceptions=True)


async def _let_out(house: Inside, grace: float, say: Say) -> None:
    house.gate.drain()
    inside = house.gate.inside
    say(f"stopping: {inside} requests have {grace:g} s to end; a second signal ends at once")
    if not await house.gate.wait(grace):
        say(f"{house.gate.inside} requests were not done and are told so")
        house.cut_off()
        await house.gate.wait(TOLD)


class _Server(uvicorn.Server):
    """Signals are the process's, not one listener's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        yield


@contextmanager
def _signals(say: Say) -> Iterator[asyncio.Event]:
    """An event that the first signal sets; the second one ends the process."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    def hear(number: int) -> None:
        if told.is_set():
            say("ended at once")
            os._exit(128 + number)
        told.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, hear, number)
    try:
        yield told
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def _until(happened: Callable[[], bool], tasks: Sequence[asyncio.Task[None]]) -> None:
    while not happened() and not any(task.done() for task in tasks):
        await asyncio.sleep(0.005)


async def _first(wanted: Awaitable[object], *tasks: asyncio.Task[None]) -> None:
    """Until the wanted comes, or a server ends by itself; what it raised comes out."""
    waiting = asyncio.ensure_future(wanted)
    try:
        done, _ = await asyncio.wait({waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {waiting}:
            task.result()
    finally:
        waiting.cancel()
