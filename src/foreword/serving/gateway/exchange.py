"""One request's way: understood, routed, put to the model, admitted, generated, counted, told.

    body ─▶ ask ─▶ route ─▶ prompts ─▶ quota ─▶ backend ─▶ pieces ─▶ answer
                     ▲                             │
                     └── fallback, by policy, ◀────┘ before the first token only

Whatever happens on the way, at its end the quota is settled, what still generates is cancelled, and one
record is emitted.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from foreword.errors import Cancelled, EngineFailed, ForewordError
from foreword.serving.contract import BARE, Chunk, GenerateRequest, Usage
from foreword.serving.gateway.access.keys import require_scope
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.front import Front, Run
from foreword.serving.gateway.ids import new_id
from foreword.serving.gateway.limits.quotas import Ticket
from foreword.serving.gateway.prompting import Prompter, Tokens, Way
from foreword.serving.gateway.receipts import receipt
from foreword.serving.gateway.reply import Reply
from foreword.serving.gateway.routing.route import Route
from foreword.serving.gateway.story import Operation, Story
from foreword.serving.gateway.streams import Piece, pieces
from foreword.serving.wire.answers import Answered, Head
from foreword.serving.wire.asks import Ask
from foreword.serving.wire.logprobs import Spell
from foreword.serving.wire.receipt import Receipt

Request = TypeVar("Request", bound=Ask)


@dataclass(frozen=True)
class Begun:
    """A request whose first piece is here: from now on nothing else answers it."""

    receipt: Receipt
    first: Piece
    rest: AsyncGenerator[Piece, None]
    answers: int
    """Of all prompts together."""

    async def pieces(self) -> AsyncIterator[Piece]:
        yield self.first
        async for piece in self.rest:
            yield piece


class Events(Protocol):
    """From pieces to the documents of a streamed answer."""

    def take(self, index: int, chunk: Chunk) -> Iterator[dict[str, Any]]: ...

    def end(self, usage: Usage) -> Iterator[dict[str, Any]]: ...


class Kind(Protocol[Request]):
    """What is special about chat completions, and about completions."""

    operation: Operation
    id_start: str

    def parse(self, body: bytes) -> Request: ...

    async def prompts(self, prompter: Prompter, ask: Request, way: Way) -> Sequence[Tokens]: ...

    def whole(
        self, head: Head, answers: Sequence[Answered], usage: Usage, spell: Spell, ask: Request
    ) -> dict[str, Any]: ...

    def events(self, head: Head, answers: int, spell: Spell, ask: Request) -> Events: ...


@dataclass
class Exchange(Generic[Request]):
    """One request. `sticky` chooses its arm unless the body names a user."""

    front: Front
    kind: Kind[Request]
    principal: Principal
    story: Story
    reply: Reply
    sticky: str
    ticket: Ticket | None = field(default=None, init=False)

    async def run(self, body: bytes) -> None:
        """Answer it. Every failure is told to the client; only its going away comes out."""
        try:
            await self._answer(body)
        except Exception as error:
            await self.reply.fail(error, self._headers())
        finally:
            if self.ticket is not None:
                self.ticket.settle(self.story.tokens)
            self.front.emit(
                self.story.end(self.reply.status, self.reply.code, str(self.front.base))
            )

    async def _answer(self, body: bytes) -> None:
        with self.story.span("authorise"):
            require_scope(self.principal, "generate")
        ask = self.kind.parse(body)
        self.story.stream, self.story.n = ask.stream, ask.n
        begun = await self._begin(ask)
        name = self.kind.id_start + self.story.id.removeprefix("req_")
        head = Head(name, int(self.story.came), begun.receipt)
        async with aclosing(begun.rest):
            with self.story.span("decode"):
                await (self._stream if ask.stream else self._whole)(begun, head, ask)

    async def _whole(self, begun: Begun, head: Head, ask: Request) -> None:
        chunks: list[list[Chunk]] = [[] for _ in range(begun.answers)]
        async for piece in begun.pieces():
            chunks[piece.choice].append(piece.chunk)
        answers = [Answered.of(said, logprobs=ask.logprobs is not None) for said in chunks]
        spell, usage = self.front.prompter.spell, self.story.usage()
        said = self.kind.whole(head, answers, usage, spell, ask)
        await self.reply.json(said, begun.receipt.headers())

    async def _stream(self, begun: Begun, head: Head, ask: Request) -> None:
        events = self.kind.events(head, begun.answers, self.front.prompter.spell, ask)
        headers = begun.receipt.headers()
        async for piece in begun.pieces():
            for document in events.take(piece.choice, piece.chunk):
                await self.reply.event(document, headers)
        for document in events.end(self.story.usage()):
            await self.reply.event(document, headers)
        await self.reply.done()

    def _headers(self) -> dict[str, str]:
        """Of a failure: which route failed, without a digest, for nothing answered."""
        route = self.story.route
        return {} if route is None else replace(receipt(route, BARE), fallback=None).headers()

    async def _begin(self, ask: Request) -> Begun:
        """The first piece of the first choice, or else of what may stand in for it."""
        with self.story.span("resolve"):
            route = self.front.router.route(self.principal, ask.model, ask.user or self.sticky)
        while True:
            self.story.route = route
            try:
                return await self._try(ask, route)
            except ForewordError as error:
                instead = self.front.router.after_failure(self.principal, route, error)
                if instead is None:
                    raise
                route = instead

    async def _try(self, ask: Request, route: Route) -> Begun:
        requests = await self._requests(ask, route)
        self._admit(requests)
        stream = self._pieces(requests, route)
        try:
            with self.story.asking():
                first = await anext(stream)
        except StopAsyncIteration as error:
            raise EngineFailed("the engine ended an answer without a word; ask again") from error
        except BaseException:
            await stream.aclose()
            raise
        return Begun(receipt(route, first.chunk.adapters), first, stream, len(requests) * ask.n)

    async def _pieces(
        self, requests: Sequence[GenerateRequest], route: Route
    ) -> AsyncGenerator[Piece, None]:
        run = Run(self.principal, route)
        self.front.running.update({request.id: run for request in requests})
        try:
            # Asked once more: whoever ends requests looks at those that are noted above.
            if error := self.front.router.why_ended(self.principal, route):
                raise error
            async with aclosing(pieces(self.front.backend, requests)) as found:
                async for piece in found:
                    self.story.hear(piece.choice, piece.chunk)
                    yield piece
        except Cancelled as error:
            if run.ended is None:
                raise
            raise run.ended from error
        finally:
            for request in requests:
                del self.front.running[request.id]

    async def _requests(self, ask: Request, route: Route) -> list[GenerateRequest]:
        """What the backend is asked: one request for each prompt, all for the route's digest."""
        prompter = self.front.prompter
        trained = route.prefix.prompt if route.prefix else None
        way = Way(trained, ask.extension.prompt, ask.extension.inputs)
        prompts = await self.kind.prompts(prompter, ask, way)
        length = route.prefix.length if route.prefix else 0
        own, deadline = new_id(), time.monotonic() + self.front.most_seconds
        return [
            GenerateRequest(
                id=f"{own}-{place}",
                prompt=prompt,
                tenant=self.principal.tenant,
                adapters=route.adapters,
                max_tokens=prompter.new_tokens(prompt, length, ask.max_tokens),
                sampling=ask.sampling,
                stop=ask.stop,
                stop_ids=ask.stop_ids,
                ignore_eos=ask.ignore_eos,
                n=ask.n,
                logprobs=ask.logprobs,
                constraint=ask.constraint,
                deadline=deadline,
            )
            for place, prompt in enumerate(prompts)
        ]

    def _admit(self, requests: Sequence[GenerateRequest]) -> None:
        """Take from the quota what these may need; a fallback is the same request."""
        self.story.prompt_tokens = sum(len(request.prompt) for request in requests)
        if self.ticket is None:
            new = sum(request.n * request.max_tokens for request in requests)
            tokens = self.story.prompt_tokens + new
            self.ticket = self.front.quotas.admit(self.principal, tokens, time.monotonic())
