"""A backend without a model: its tokens follow from the request, and it fails when it is told to.

What it says for a request is a pure function (`tokens_of`, `text_of`), so a test knows every answer,
and another prefix, tenant or prompt gives another one. Everything it was asked is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from foreword.artifact import Digest
from foreword.errors import Cancelled, ForewordError
from foreword.serving.contract import (
    AdapterSet,
    Capacity,
    Chunk,
    Finish,
    GenerateRequest,
    Health,
    ResidentPrefix,
    TokenLogprob,
    Usage,
)

VOCAB = 1000
Say = Callable[[GenerateRequest, int], Sequence[str]]
"""The pieces of answer `index`, one for each token."""


def tokens_of(request: GenerateRequest, index: int = 0, count: int | None = None) -> list[int]:
    """What answer `index` is made of: other adapters, prompts, tenants or seeds give other tokens."""
    key = (request.prompt, request.tenant, request.adapters, request.sampling, index)
    return [
        int.from_bytes(hashlib.sha256(f"{key} {place}".encode()).digest()[:4]) % VOCAB
        for place in range(request.max_tokens if count is None else count)
    ]


def spell(token: int) -> bytes:
    return f" t{token}".encode()


def text_of(request: GenerateRequest, index: int = 0) -> str:
    return b"".join(map(spell, tokens_of(request, index))).decode()


@dataclass
class ScriptedBackend:
    """`Backend` and `PrefixHost`. All settings may be changed while it runs."""

    first: float = 0.0
    """Seconds before the first token."""
    pause: float = 0.0
    """Seconds before each other token."""
    say: Say | None = None
    """Another text than `text_of`; its answers end with `stop`, the usual ones with `length`."""
    fails: Callable[[GenerateRequest], ForewordError | Exception | None] = lambda request: None
    """The error of a request, if it has one."""
    fails_after: int = 0
    """Tokens of each answer that come before the error."""
    attach: Callable[[AdapterSet], AdapterSet] = lambda adapters: adapters
    """What chunks say was attached: another one than was asked for is what must never happen."""
    slots: int = 64
    state: Literal["ready", "draining", "wedged", "failed"] = "ready"
    asked: list[GenerateRequest] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    """Ids of requests that were given up, by `cancel` or because nobody listened any more."""
    prefetched: list[Digest] = field(default_factory=list)
    forgotten: list[Digest] = field(default_factory=list)
    forgotten_tenants: list[str] = field(default_factory=list)
    resident: set[Digest] = field(default_factory=set)
    running: dict[str, asyncio.Event] = field(default_factory=dict)
    """Requests that are being answered; setting the event gives one up."""

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        self.asked.append(request)
        given_up = self.running[request.id] = asyncio.Event()
        error, ended = self.fails(request), False
        try:
            for place, chunk in self._chunks(request):
                if error is not None and place >= self.fails_after:
                    raise error
                await self._wait(given_up, self.pause if place else self.first)
                yield chunk
            if error is not None:
                raise error
            ended = True
        except ForewordError as e:
            ended = not isinstance(e, Cancelled)
            raise
        finally:
            del self.running[request.id]
            if not ended:
                self.cancelled.append(request.id)

    def cancel(self, request_id: str) -> None:
        if request_id in self.running:
            self.running[request_id].set()

    def capacity(self) -> Capacity:
        return Capacity(len(self.running), 0, self.slots, 0, 1, len(self.resident), 1 << 20)

    def health(self) -> Health:
        return Health(self.state, time.monotonic())

    def prefetch(self, digests: Sequence[Digest]) -> None:
        self.prefetched += digests
        self.resident |= set(digests)

    def forget(self, digests: Sequence[Digest]) -> None:
        self.forgotten += digests
        self.resident -= set(digests)

    def forget_tenant(self, tenant: str) -> None:
        self.forgotten_tenants.append(tenant)

    def residents(self) -> tuple[ResidentPrefix, ...]:
        return tuple(ResidentPrefix(digest, 1, 0) for digest in sorted(self.resident, key=str))

    async def _wait(self, given_up: asyncio.Event, seconds: float) -> None:
        if seconds:
            with suppress(TimeoutError):
                await asyncio.wait_for(given_up.wait(), seconds)
        if given_up.is_set():
            raise Cancelled("a request was given up")

    def _chunks(self, request: GenerateRequest) -> list[tuple[int, Chunk]]:
        """The chunks of all answers, one token of each in turn, with their places."""
        answers = [self._answer(request, index) for index in range(request.n)]
        turns = itertools.zip_longest(*answers)
        return [(place, chunk) for place, turn in enumerate(turns) for chunk in turn if chunk]

    def _answer(self, request: GenerateRequest, index: int) -> list[Chunk]:
        pieces = self.say(request, index) if self.say else None
        tokens = tokens_of(request, index, None if pieces is None else len(pieces))
        finish = Finish.LENGTH if pieces is None else Finish.STOP
        usage = Usage(len(request.prompt), 0, len(tokens))
        last = len(tokens) - 1
        return [
            Chunk(
                id=request.id,
                index=index,
                text=spell(token).decode() if pieces is None else pieces[place],
                tokens=(token,),
                adapters=self.attach(request.adapters),
                logprobs=self._logprobs(request, token),
                finish=finish if place == last else None,
                usage=usage if place == last else None,
            )
            for place, token in enumerate(tokens)
        ]

    def _logprobs(self, request: GenerateRequest, token: int) -> tuple[TokenLogprob, ...]:
        if request.logprobs is None:
            return ()
        others = tuple(((token + n) % VOCAB, -0.5 - n) for n in range(request.logprobs))
        return (TokenLogprob(token, -0.5, others),)
