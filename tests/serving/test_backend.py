"""The engine behind streams: order, going away, draining, and saying how it is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, cast

import pytest
from torch import Tensor

from foreword.errors import Cancelled, EngineFailed, ForewordError, Overloaded, UsageError
from foreword.prefix.base_model import BaseModel
from foreword.serving.contract import Backend, Chunk, Constraint, Finish, GenerateRequest, Sampling
from foreword.serving.engine.backend import EmbeddedBackend
from foreword.serving.engine.engine import Engine, Event
from foreword.serving.engine.model.attention import Piece
from foreword.serving.engine.model.runner import ModelRunner
from tests.serving.asking import answers, ask, engine_with, loaded, text
from tests.tiny import tiny_base

SOON = 20.0
"""Seconds after which a test says that something does not come."""
VARIED = Sampling(repetition_penalty=5.0)


@cache
def shared_base() -> BaseModel:
    return tiny_base()


@contextmanager
def backend_of(engine: Engine | None = None, **options: Any) -> Iterator[EmbeddedBackend]:
    backend = EmbeddedBackend(engine or engine_with(shared_base()), **options)
    try:
        yield backend
    finally:
        backend.close()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(SOON):
            return await work

    return asyncio.run(limited())


async def chunks_of(backend: Backend, request: GenerateRequest) -> list[Chunk]:
    return [chunk async for chunk in backend.generate(request)]


async def error_of(backend: Backend, request: GenerateRequest) -> ForewordError:
    with pytest.raises(ForewordError) as caught:
        await chunks_of(backend, request)
    return caught.value


async def until(happened: Callable[[], bool]) -> None:
    while not happened():
        await asyncio.sleep(0.002)


def tokens(chunks: Sequence[Chunk], index: int = 0) -> list[int]:
    return [token for chunk in chunks if chunk.index == index for token in chunk.tokens]


class Gate:
    """Holds every step of the model while it is shut, makes it slow, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.opened.set()
        self.held = threading.Event()
        self.pause, self.steps = 0.0, 0
        run_step = ModelRunner.run

        def held(runner: ModelRunner, pieces: Sequence[Piece]) -> Tensor:
            if not self.opened.is_set():
                self.held.set()
                self.opened.wait()
            self.steps += 1
            time.sleep(self.pause)
            return run_step(runner, pieces)

        monkeypatch.setattr(ModelRunner, "run", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.opened.set()


# --- streams -------------------------------------------------------------------------------------


def test_chunks_come_one_by_one_in_order_and_end_with_the_count() -> None:
    request = ask(text(5), max_tokens=8, sampling=VARIED)
    with backend_of() as backend:
        chunks = run(chunks_of(backend, request))
    assert [len(chunk.tokens) for chunk in chunks] == [1] * 8
    assert tokens(chunks) == answers(engine_with(shared_base()), request)[0]
    assert [chunk.finish for chunk in chunks] == [None] * 7 + [Finish.LENGTH]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_all_answers_of_a_request_come_to_their_ends() -> None:
    same_length = ask(text(5), n=3, max_tokens=4)
    drawn = ask(text(5), n=3, max_tokens=9, stop_ids=tuple(range(64)),
                sampling=Sampling(temperature=1.0, seed=3))  # fmt: skip
    with backend_of() as backend:
        for request in (same_length, drawn):
            chunks = run(chunks_of(backend, request))
            ends = [chunk.index for chunk in chunks if chunk.finish is not None]
            assert sorted(ends) == [0, 1, 2]


def test_a_hundred_streams_at_once_each_get_their_own_answer() -> None:
    base = shared_base()
    prefixes = [loaded(base, n, 1 + n) for n in range(6)]
    requests = [
        ask(text(1 + i % 9, i), prefixes[i % 6] if i % 7 else None, max_tokens=1 + i % 6,
            tenant=f"t{i % 3}", sampling=VARIED)
        for i in range(100)
    ]  # fmt: skip

    async def all_of_them(backend: Backend) -> list[list[Chunk]]:
        return await asyncio.gather(*(chunks_of(backend, request) for request in requests))

    with backend_of(engine_with(base, *prefixes, most_running=16)) as backend:
        heard = run(all_of_them(backend))
        assert backend.capacity().running == backend.capacity().waiting == 0
    together = answers(engine_with(base, *prefixes), *requests)
    assert [tokens(chunks) for chunks in heard] == together
    for request, chunks in zip(requests, heard, strict=True):
        assert {(c.id, c.adapters) for c in chunks} == {(request.id, request.adapters)}


def test_an_error_of_a_request_is_raised_from_its_stream_and_the_next_is_answered() -> None:
    with backend_of() as backend:
        error = run(error_of(backend, ask(())))
        assert (type(error), error.code) == (UsageError, "request.prompt")
        bad = Constraint("regex", "(?=a)b")
        assert run(error_of(backend, ask(text(3), constraint=bad))).code == "request.constraint"
        assert len(run(chunks_of(backend, ask(text(3), constraint=Constraint("regex", "ab")))))
        assert backend.health().state == "ready"


def test_an_id_in_use_is_refused_and_the_first_stream_goes_on(gate: Gate) -> None:
    async def twice(backend: Backend) -> int:
        request = ask(text(3))
        gate.opened.clear()
        first = asyncio.create_task(chunks_of(backend, request))
        await until(gate.held.is_set)
        second = asyncio.create_task(error_of(backend, replace(request, prompt=text(4))))
        gate.opened.set()
        assert (await second).code == "request.id_in_use"
        return len(await first)

    with backend_of() as backend:
        assert run(twice(backend)) == 6


# --- going away ----------------------------------------------------------------------------------


def test_a_consumer_that_goes_away_gives_its_rows_back(gate: Gate) -> None:
    long = ask(text(3), n=4, max_tokens=60)

    async def two_chunks(backend: EmbeddedBackend) -> None:
        async with aclosing(cast(AsyncGenerator[Chunk], backend.generate(long))) as stream:
            await anext(stream)
            await anext(stream)
            assert backend.capacity().running == 4
        await until(lambda: backend.capacity().running == 0)

    async def a_task_that_is_cancelled(backend: EmbeddedBackend) -> None:
        task = asyncio.create_task(chunks_of(backend, replace(long, id="task")))
        await until(lambda: backend.capacity().running == 4)
        task.cancel()
        await until(lambda: backend.capacity().running == 0)

    gate.pause = 0.02
    with backend_of() as backend:
        for goes_away in (two_chunks, a_task_that_is_cancelled):
            gate.steps = 0
            run(goes_away(backend))
            assert gate.steps < 30, "it would have gone on to 60"


def test_a_loop_that_is_gone_does_not_disturb_the_others() -> None:
    async def first_chunk(backend: Backend) -> None:
        stream: AsyncIterator[Chunk] = backend.generate(ask(text(3), max_tokens=60))
        await anext(stream)

    with backend_of() as backend:
        run(first_chunk(backend))
        assert len(run(chunks_of(backend, ask(text(3))))) == 6


def test_cancel_ends_the_stream_with_cancelled(gate: Gate) -> None:
    async def cancelled(backend: Backend) -> ForewordError:
        request = ask(text(3), max_tokens=60)
        gate.opened.clear()
        task = asyncio.create_task(error_of(backend, request))
        await until(gate.held.is_set)
        backend.cancel("nobody")
        backend.cancel(request.id)
        gate.opened.set()
        return await task

    with backend_of() as backend:
        assert isinstance(run(cancelled(backend)), Cancelled)


# --- the end -------------------------------------------------------------------------------------


def test_draining_finishes_what_runs_and_takes_nothing_new(gate: Gate) -> None:
    async def drained(backend: EmbeddedBackend) -> tuple[bool, list[Chunk]]:
        gate.opened.clear()
        running = asyncio.create_task(chunks_of(backend, ask(text(3))))
        await until(gate.held.is_set)
        draining = asyncio.create_task(backend.drain(SOON))
        await until(lambda: backend.health().state == "draining")
        refused = await error_of(backend, ask(text(3)))
        assert (type(refused), refused.code) == (Overloaded, "serving.draining")
        gate.opened.set()
        return await draining, await running

    with backend_of() as backend:
        finished, chunks = run(drained(backend))
        assert finished
        assert len(chunks) == 6
        assert backend.health().state == "failed"


def test_what_is_left_when_the_time_to_drain_is_over_is_cancelled(gate: Gate) -> None:
    async def drained(backend: EmbeddedBackend) -> list[ForewordError]:
        requests = [ask(text(3, i), max_tokens=60) for i in range(3)]  # one runs, two wait
        tasks = [asyncio.create_task(error_of(backend, request)) for request in requests]
        await until(lambda: backend.capacity().waiting == 2)
        assert not await backend.drain(0.0)
        return await asyncio.gather(*tasks)

    gate.pause = 0.02
    with backend_of(engine_with(shared_base(), most_running=1)) as backend:
        assert {type(error) for error in run(drained(backend))} == {Cancelled}


def test_closing_twice_is_nothing_and_a_closed_engine_answers_nobody() -> None:
    with backend_of() as backend:
        backend.close()
        backend.close()
        assert isinstance(run(error_of(backend, ask(text(3)))), Overloaded)
        assert backend.health().state == "failed"


def test_a_request_that_comes_while_the_engine_closes_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its constraint is compiled on another thread first, and meanwhile the engine ends.
    with backend_of() as backend:
        monkeypatch.setattr(Engine, "prepare", lambda engine, request: backend.close())
        late = ask(text(3), constraint=Constraint("regex", "ab"))
        assert isinstance(run(error_of(backend, late)), Overloaded)


# --- how it is -----------------------------------------------------------------------------------


def test_an_idle_engine_beats() -> None:
    with backend_of() as backend:
        run(until(lambda: backend.health().last_step is not None))
        first = backend.health().last_step
        run(until(lambda: backend.health().last_step != first))
        assert backend.health().state == "ready"


@pytest.mark.parametrize("first", [True, False])
def test_a_step_that_does_not_end_is_told_from_an_idle_engine(gate: Gate, first: bool) -> None:
    async def wedged(backend: EmbeddedBackend) -> None:
        if not first:
            await chunks_of(backend, ask(text(3)))
        gate.opened.clear()
        task = asyncio.create_task(chunks_of(backend, ask(text(3))))
        await until(gate.held.is_set)
        await until(lambda: backend.health().state == "wedged")
        with pytest.raises(EngineFailed) as caught:
            await task  # although the step still hangs
        assert (await error_of(backend, ask(text(3)))).code == caught.value.code == "engine.wedged"
        gate.opened.set()
        await until(lambda: backend.health().state == "ready")
        assert len(await chunks_of(backend, ask(text(3)))) == 6
        assert backend.capacity().running == backend.capacity().waiting == 0  # it was given up

    with backend_of(wedged_after=1.2) as backend:
        run(wedged(backend))


def test_draining_a_wedged_engine_comes_to_an_end(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foreword.serving.engine.backend._LAST_STEP", 0.2)

    async def drained(backend: EmbeddedBackend) -> ForewordError:
        gate.opened.clear()
        task = asyncio.create_task(error_of(backend, ask(text(3))))
        await until(gate.held.is_set)
        assert not await backend.drain(0.1)
        return await task

    with backend_of() as backend:
        assert isinstance(run(drained(backend)), EngineFailed)
        assert backend.health().state == "failed"
        gate.opened.set()


def test_an_engine_that_breaks_tells_every_stream_and_everybody_who_comes(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Engine.step

    def broken(engine: Engine, now: float) -> list[Event]:
        events = step(engine, now)
        if engine.capacity().running:
            raise MemoryError("nothing left")
        return events

    async def all_told(backend: EmbeddedBackend) -> list[ForewordError]:
        gate.opened.clear()
        tasks = [asyncio.create_task(error_of(backend, ask(text(3, i)))) for i in range(3)]
        await until(gate.held.is_set)
        # These come while the last step runs.
        tasks += [asyncio.create_task(error_of(backend, ask(text(3, i)))) for i in range(3)]
        await asyncio.sleep(0.05)
        gate.opened.set()
        return [*await asyncio.gather(*tasks), await error_of(backend, ask(text(3)))]

    monkeypatch.setattr(Engine, "step", broken)
    with backend_of(engine_with(shared_base(), most_running=2)) as backend:
        errors = run(all_told(backend))
        assert {type(error) for error in errors} == {EngineFailed}
        health = backend.health()
        assert (health.state, health.detail) == ("failed", "MemoryError: nothing left")
        started = time.monotonic()
        backend.close()
        assert time.monotonic() - started < 1.0
