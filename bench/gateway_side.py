"""One server of `bench/gateway.py` in a process of its own: everything `foreword serve` is made of.

The embedded engine answers, behind the gateway and, if it is told to, without it. With `--instant` a backend
answers that costs nothing, so that what is left is the gateway. With `--plain` there is no gateway either: an
application on plain uvicorn reads the body and says always the same.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from gateway_client import Timed
from serving_sides import serve

from foreword.artifact import Digest
from foreword.prefix.base_model import load_base
from foreword.registry.registry import Registry
from foreword.serving.contract import (
    AdapterSet,
    Backend,
    Capacity,
    Chunk,
    Finish,
    GenerateRequest,
    Health,
    PrefixHost,
    ResidentPrefix,
    Usage,
)
from foreword.serving.engine.backend import EmbeddedBackend
from foreword.serving.gateway.access.store import AccessStore
from foreword.serving.gateway.edge import uvicorn_config
from foreword.serving.gateway.prompting import Way
from foreword.serving.server.arena import share_one_arena
from foreword.serving.server.embedded import Listeners, embedded
from foreword.serving.server.house import Behind, House, house
from foreword.serving.server.settings import ServeSettings
from foreword.serving.server.whole import model_of

_STARTED = 0.01
Result = TypeVar("Result")


class Instant:
    """Says the same token as often as it may, at once."""

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        usage = Usage(len(request.prompt), 0, request.max_tokens)
        for place in range(request.max_tokens):
            last = place + 1 == request.max_tokens
            yield Chunk(
                request.id, 0, " yes", (1,), request.adapters,
                finish=Finish.LENGTH if last else None, usage=usage if last else None,
            )  # fmt: skip

    def cancel(self, request_id: str) -> None:
        """Nothing runs for longer than a moment."""

    def capacity(self) -> Capacity:
        return Capacity(0, 0, 64, 0, 1, 0, 1)

    def health(self) -> Health:
        return Health("ready", time.monotonic())

    def prefetch(self, digests: Sequence[Digest]) -> None:
        """Everything is there already."""

    def forget(self, digests: Sequence[Digest]) -> None:
        """Nothing is kept."""

    def forget_tenant(self, tenant: str) -> None:
        """Nothing is kept."""

    def residents(self) -> tuple[ResidentPrefix, ...]:
        return ()


class Watched:
    """The backend as the gateway sees it, with a watch: who waits for whom, and how long."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.seen: list[tuple[float, list[float]]] = []
        """For each request that has ended: seconds the gateway waited for the backend, and seconds from
        each chunk until the gateway was done with it and asked for the next."""

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        waited, held = 0.0, list[float]()
        moment = time.perf_counter()
        try:
            async for chunk in self._backend.generate(request):
                came = time.perf_counter()
                waited += came - moment
                yield chunk
                moment = time.perf_counter()
                held.append(moment - came)
        finally:
            self.seen.append((waited, held))

    def cancel(self, request_id: str) -> None:
        self._backend.cancel(request_id)

    def capacity(self) -> Capacity:
        return self._backend.capacity()

    def health(self) -> Health:
        return self._backend.health()


class Server:
    """A gateway on a socket, and its backend without it."""

    def __init__(
        self,
        built: House,
        watched: Watched,
        backend: Backend,
        host: PrefixHost,
        port: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._built, self._watched, self._backend, self._host = built, watched, backend, host
        self._port, self._loop = port, loop
        self._asked = 0

    def where(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def bare(self, name: str | None, texts: Sequence[str], tokens: int) -> list[dict[str, float]]:
        """What the gateway asks of the backend, asked of it directly and all at once."""
        requests = [self._request(name, text, tokens) for text in texts]

        async def all_of_them() -> list[Timed]:
            return await asyncio.gather(*map(self._one, requests))

        return [asdict(each) for each in self._run(all_of_them())]

    def seen(self) -> list[tuple[float, list[float]]]:
        """What was seen of the gateway's requests since the last time, in the order of their ends."""
        found, self._watched.seen = self._watched.seen, []
        return found

    def residents(self, wait_for: int) -> int:
        """How many prefixes are resident, as soon as there are so many."""
        end = time.monotonic() + 600
        while (count := len(self._host.residents())) < wait_for and time.monotonic() < end:
            time.sleep(0.05)
        return count

    def prefetch(self, most: int) -> None:
        """Load released prefixes, so many of them."""
        table = self._built.follower.table
        released = [named.release for named in table.names.values()]
        found = [each.stable for each in released if each and each.stable]
        self._host.prefetch(found[:most])

    def cpu_seconds(self) -> float:
        return time.process_time()

    def operations(self) -> dict[str, Callable[..., object]]:
        return {"where": self.where, "bare": self.bare, "seen": self.seen, "residents": self.residents,
                "prefetch": self.prefetch, "cpu_seconds": self.cpu_seconds}  # fmt: skip

    async def _one(self, request: GenerateRequest) -> Timed:
        began, first = time.perf_counter(), None
        async for _ in self._backend.generate(request):
            if first is None:
                first = time.perf_counter() - began
        seconds = time.perf_counter() - began
        return Timed(seconds if first is None else first, seconds)

    def _request(self, name: str | None, text: str, tokens: int) -> GenerateRequest:
        self._asked += 1
        front, held, trained = self._built.front, AdapterSet(), None
        if name is not None:
            table = self._built.follower.table
            release = table.names[name].release
            if release is None or release.stable is None:
                raise RuntimeError(f"{name} is not released")
            held, trained = AdapterSet(release.stable), table.prompts[release.stable]
        (prompt,) = self._run(front.prompter.texts([text], Way(trained, "trained")))
        return GenerateRequest(
            f"bare-{self._asked}", prompt, "bench", held, max_tokens=tokens, ignore_eos=True
        )

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


_SAID = b'{"object":"chat.completion","choices":[]}'


async def says_the_same(scope: Any, receive: Any, send: Any) -> None:
    """The least that answers a request."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_SAID))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _SAID})


def plain(opened: ExitStack) -> dict[str, Callable[..., object]]:
    """uvicorn as it is, with the parser that the gateway has too."""
    config = uvicorn.Config(
        says_the_same, host="127.0.0.1", port=0, http="h11", lifespan="off", log_config=None
    )
    port, _ = opened.enter_context(listening(config))
    return {"where": lambda: f"http://127.0.0.1:{port}"}


@contextmanager
def listening(config: uvicorn.Config) -> Iterator[tuple[int, asyncio.AbstractEventLoop]]:
    """A server on a port of its own, on a thread with an event loop."""
    loop = asyncio.new_event_loop()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(_STARTED)
    try:
        yield server.servers[0].sockets[0].getsockname()[1], loop
    finally:
        server.should_exit = True
        thread.join(10)


def load(base: str, scratch: Path, instant: bool, opened: ExitStack) -> Server:
    settings = ServeSettings(base=base)
    place = scratch / ("instant" if instant else "engine")
    place.mkdir(parents=True, exist_ok=True)
    registry = opened.enter_context(Registry.open())
    loaded = load_base(base)
    backend: Instant | EmbeddedBackend = Instant()
    if not instant:
        made = embedded(loaded, settings.embedded, registry, None, place, Listeners())
        backend = made.backend
        opened.callback(backend.close)
    watched = Watched(backend)
    behind = Behind(watched, backend, backend.health)
    built = opened.enter_context(
        house(settings, AccessStore(), registry, model_of(loaded), behind, place)
    )
    config = uvicorn_config(built.edge, host="127.0.0.1", port=0, grace=1)
    port, loop = opened.enter_context(listening(config))
    gc.collect()
    gc.freeze()  # as `foreword serve` does once it listens
    return Server(built, watched, backend, backend, port, loop)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--instant", action="store_true")
    parser.add_argument("--plain", action="store_true")
    given = parser.parse_args()
    share_one_arena()  # as `foreword serve` begins
    with ExitStack() as opened:
        if given.plain:
            serve(lambda: plain(opened))
        else:
            serve(lambda: load(given.base, given.scratch, given.instant, opened).operations())
        os._exit(0)  # loops and engines of a benchmark have nothing to put away


if __name__ == "__main__":
    main()
