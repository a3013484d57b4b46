"""An engine in another process as a `Backend` and `PrefixHost`: what `engine_app` serves, over HTTP.

    async with HttpBackend("http://10.0.0.5:8100", Secret(text), fingerprint) as backend:
        async for chunk in backend.generate(request): ...

Nothing here waits for the other side but `generate`. What is to be prefetched or forgotten is noted and
passed on by the task that also asks how the engine is; what is to be forgotten until it arrived.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx2

from foreword.artifact import Digest
from foreword.errors import ConfigError, EngineFailed, UsageError
from foreword.serving.contract import Capacity, Chunk, GenerateRequest, Health, ResidentPrefix
from foreword.serving.upstream.base_json import BASE_HEADER, OTHER_BASE
from foreword.serving.upstream.chunk_json import chunk_from_bytes
from foreword.serving.upstream.contract_json import digests_to_json, request_to_json
from foreword.serving.upstream.documents import CAPS, MALFORMED, to_bytes
from foreword.serving.upstream.errors_json import error_from_bytes
from foreword.serving.upstream.poll import Known, look, unreachable
from foreword.serving.upstream.secret import Secret

_KEPT = 2.0
"""Seconds a connection is kept for the next request: less than servers keep it, which would otherwise
close it just when it is used."""
_NOT_ASKED = Known(Health("failed", None, "it was not asked yet"))


@dataclass(frozen=True)
class Timeouts:
    """Seconds."""

    connect: float = 2.0
    silence: float = 15.0
    """Of a stream; a well engine says something three times as often."""
    answer: float = 2.0
    """Of everything else."""
    poll: float = 0.25
    """Between two looks at how it is."""


class HttpBackend:
    """One engine at `url` that runs the base `base`; belongs to the event loop that enters it.

    `health`, `capacity` and `residents` tell what the last look found, at once and on any thread.

    Raises:
        ConfigError: the address is none (`engine.url`).
    """

    def __init__(
        self, url: str, secret: Secret, base: Digest, timeouts: Timeouts | None = None
    ) -> None:
        self._timeouts = timeouts or Timeouts()
        self._client = httpx2.AsyncClient(
            base_url=address_of(url),
            headers={**secret.headers, BASE_HEADER: str(base)},
            timeout=httpx2.Timeout(
                self._timeouts.answer, connect=self._timeouts.connect, pool=None
            ),
            # Every stream holds a connection; how many there may be is for the gateway to say.
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=64, keepalive_expiry=_KEPT
            ),
            trust_env=False,
        )
        self._known = _NOT_ASKED
        self._prefetch: deque[Digest] = deque()
        self._forget: deque[Digest] = deque()
        self._give_up: deque[str] = deque()
        self._forget_tenants: deque[str] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        await self._look()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Chunks as they come; a consumer that goes away cancels the request.

        Raises:
            ForewordError: what the engine says.
            EngineFailed: it does not answer, or ends in the middle (`engine.unreachable`).
        """
        left = request.n
        try:
            async with aclosing(self._lines(request)) as lines:
                async for line in lines:
                    chunk = _chunk(line)
                    left -= chunk.finish is not None
                    yield chunk
            if left:
                raise EngineFailed(
                    "the engine's process ended an answer in the middle; ask again",
                    code="engine.unreachable",
                    retry_after=1.0,
                )
        except httpx2.HTTPError as e:
            raise unreachable(e) from e
        finally:
            if left:
                self.cancel(request.id)

    def cancel(self, request_id: str) -> None:
        self._note(self._give_up, [request_id])

    def capacity(self) -> Capacity:
        return self._known.capacity

    def health(self) -> Health:
        return self._known.health

    def prefetch(self, digests: Sequence[Digest]) -> None:
        self._note(self._prefetch, digests)

    def forget(self, digests: Sequence[Digest]) -> None:
        """Never fails: it is passed on as soon as the engine can be reached."""
        self._note(self._forget, digests)

    def forget_tenant(self, tenant: str) -> None:
        """As `forget`."""
        self._note(self._forget_tenants, [tenant])

    def residents(self) -> tuple[ResidentPrefix, ...]:
        return self._known.residents

    # On the event loop.

    async def _lines(self, request: GenerateRequest) -> AsyncGenerator[bytes, None]:
        body = to_bytes(request_to_json(request, time.monotonic()))
        silence = httpx2.Timeout(self._timeouts.silence, connect=self._timeouts.connect, pool=None)
        async with self._client.stream("POST", "generate", content=body, timeout=silence) as said:
            if said.status_code != 200:
                raise refusal(said.status_code, await said.aread())
            left = bytearray()
            async for part in said.aiter_bytes():
                *whole, rest = (bytes(left) + part).split(b"\n")
                left = bytearray(rest)
                if len(left) > CAPS.nbytes:
                    raise EngineFailed("a line without an end came from the engine's process")
                for line in filter(None, whole):
                    yield line

    async def _run(self) -> None:
        while True:
            await self._pass_on()
            await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeouts.poll):
                    await self._wake.wait()
            self._wake.clear()

    async def _look(self) -> None:
        self._known = await look(self._ask, self._known)

    async def _ask(self, path: str) -> bytes:
        said = await self._client.get(path)
        if said.status_code != 200:
            raise refusal(said.status_code, said.content)
        return said.content

    async def _pass_on(self) -> None:
        """Tell what is noted; what has to be forgotten stays noted until it was taken."""
        with suppress(httpx2.HTTPError):
            while self._give_up:
                await self._client.delete(f"requests/{quote(self._give_up.popleft(), safe='')}")
            while self._forget_tenants:
                said = await self._client.delete(
                    f"tenants/{quote(self._forget_tenants[0], safe='')}"
                )
                said.raise_for_status()
                self._forget_tenants.popleft()
            if unwanted := tuple(self._forget):
                await self._tell("forget", unwanted)
                for _ in unwanted:
                    self._forget.popleft()
            if wanted := tuple(self._prefetch):
                self._prefetch.clear()
                await self._tell("prefetch", wanted)

    async def _tell(self, path: str, digests: Sequence[Digest]) -> None:
        said = await self._client.post(path, content=to_bytes(digests_to_json(digests)))
        said.raise_for_status()

    # On any thread.

    def _note(
        self, row: deque[str] | deque[Digest], items: Sequence[str] | Sequence[Digest]
    ) -> None:
        row.extend(items)  # type: ignore[arg-type]
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(self._wake.set)


def address_of(url: str) -> httpx2.URL:
    """Where the paths of the engine at `url` begin.

    Raises:
        ConfigError: it is no address (`engine.url`).
    """
    try:
        address = httpx2.URL(f"{url.rstrip('/')}/engine/v1/")
    except httpx2.InvalidURL:
        address = httpx2.URL("")
    if address.scheme not in ("http", "https") or not address.host or address.userinfo:
        raise ConfigError(
            f"expected the address of an engine such as http://10.0.0.5:8100, got {url[:80]!r}",
            code="engine.url",
        )
    return address


def _chunk(line: bytes) -> Chunk:
    """The chunk of a line; what is none is the engine's fault, not the client's."""
    try:
        return chunk_from_bytes(line)
    except UsageError as e:
        if e.code != MALFORMED:
            raise
        raise EngineFailed(f"the engine's process said what nobody understands ({e})") from e


def refusal(status: int, body: bytes) -> EngineFailed:
    """What a status means for a request: it is about the gateway, never about its client."""
    code = "engine.refused"
    try:
        error = error_from_bytes(body)
        reason = f"{status}: {error}"
        code = error.code if error.code == OTHER_BASE else code
    except UsageError:
        reason = f"{status}, and not from an engine"
    return EngineFailed(
        f"the engine's process refused the gateway ({reason}); its operator has to look", code=code
    )
