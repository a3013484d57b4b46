"""The chunks of one HTTP request: several prompts side by side, and no chunk of another prefix.

Whoever stops listening, for whatever reason, closes the stream; that cancels what still generates.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import NamedTuple, cast

from foreword.errors import EngineFailed
from foreword.serving.contract import AdapterSet, Backend, Chunk, GenerateRequest
from foreword.telemetry.records import DIGEST_MISMATCH

_AHEAD = 64
"""Chunks that wait for a slow client before the backend's streams are not read any further."""


class Piece(NamedTuple):
    """A chunk, and which of the HTTP request's answers it belongs to."""

    choice: int
    chunk: Chunk


def pieces(backend: Backend, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Piece, None]:
    """Chunks of all requests as they come. The answers of prompt `i` are `i * n` and the next ones.

    Raises:
        ServingError, UsageError: one of them failed, and with it the others. Also if a chunk says
            that other adapters were attached than its request named (`serving.digest_mismatch`).
    """
    if len(requests) == 1:  # most have one, and every layer between costs each token something
        return _one(backend, requests[0], 0)
    return _side_by_side(backend, requests)


async def _one(
    backend: Backend, request: GenerateRequest, first: int
) -> AsyncGenerator[Piece, None]:
    stream = cast("AsyncGenerator[Chunk, None]", backend.generate(request))
    async with aclosing(stream):
        async for chunk in stream:
            _require_attached(request.adapters, chunk)
            yield Piece(first + chunk.index, chunk)


async def _side_by_side(
    backend: Backend, requests: Sequence[GenerateRequest]
) -> AsyncGenerator[Piece, None]:
    queue: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue(_AHEAD)
    tasks = [
        asyncio.create_task(_pump(_one(backend, request, place * request.n), queue))
        for place, request in enumerate(requests)
    ]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def _pump(
    found: AsyncGenerator[Piece, None], queue: asyncio.Queue[Piece | BaseException | None]
) -> None:
    try:
        async with aclosing(found):
            async for piece in found:
                await queue.put(piece)
    except Exception as error:
        await queue.put(error)
    else:
        await queue.put(None)


def _require_attached(expected: AdapterSet, chunk: Chunk) -> None:
    if chunk.adapters != expected:
        raise EngineFailed(
            f"the answer was made with {_said(chunk.adapters)} instead of {_said(expected)} and was "
            "thrown away; this is a fault of the engine, please report it",
            code=DIGEST_MISMATCH,
        )


def _said(adapters: AdapterSet) -> str:
    return "the bare model" if adapters.prefix is None else f"prefix {adapters.prefix.short}"
