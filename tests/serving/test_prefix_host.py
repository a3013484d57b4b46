"""The embedded engine as a host of prefixes: ahead of requests, on revocation, asked by any thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from foreword.artifact import Digest
from foreword.prefix.base_model import BaseModel
from foreword.serving.contract import AdapterSet, Chunk, GenerateRequest, PrefixHost
from foreword.serving.engine.backend import EmbeddedBackend
from foreword.serving.engine.engine import Engine, EngineSettings
from tests.serving.asking import text
from tests.serving.prefix_samples import Source, one, store


@pytest.fixture
def backend(base: BaseModel, source: Source) -> Iterator[EmbeddedBackend]:
    engine = Engine(base, store(base, source, room=4), EngineSettings(kv_bytes=16 << 20))
    backend = EmbeddedBackend(engine)
    yield backend
    backend.close()


def until(true: Callable[[], bool], seconds: float = 10.0) -> float:
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.002)
    return time.monotonic() - began


def here(host: PrefixHost) -> set[Digest]:
    return {each.digest for each in host.residents()}


def answer(backend: EmbeddedBackend, digest: Digest) -> list[Chunk]:
    async def heard() -> list[Chunk]:
        request = GenerateRequest(
            f"r{time.monotonic_ns()}", text(4), adapters=AdapterSet(digest), max_tokens=3,
            ignore_eos=True,
        )  # fmt: skip
        return [chunk async for chunk in backend.generate(request)]

    return asyncio.run(heard())


def test_an_idle_engine_takes_a_prefetched_prefix_in_without_waiting_for_its_next_beat(
    backend: EmbeddedBackend, base: BaseModel, names: list[Digest]
) -> None:
    assert backend.residents() == ()
    until(lambda: backend.health().last_step is not None)
    backend.prefetch(names[:2])
    assert until(lambda: here(backend) == set(names[:2])) < 0.4
    assert [(each.nbytes, each.pins) for each in backend.residents()] == [(one(base), 0)] * 2


def test_a_prefetched_prefix_is_not_fetched_again_by_its_first_request(
    backend: EmbeddedBackend, source: Source, names: list[Digest]
) -> None:
    backend.prefetch([names[0]])
    until(lambda: here(backend) == {names[0]})
    assert answer(backend, names[0])[-1].adapters == AdapterSet(names[0])
    assert source.asked == [names[0]]


def test_what_was_forgotten_is_fetched_and_judged_anew_by_the_next_request(
    backend: EmbeddedBackend, source: Source, names: list[Digest]
) -> None:
    answer(backend, names[0])
    backend.forget([names[0], names[1]])
    assert here(backend) == set(), "the engine's thread does things in the order they were asked"
    answer(backend, names[0])
    assert source.asked == [names[0]] * 2


def test_running_requests_are_told_and_keep_what_is_forgotten(
    backend: EmbeddedBackend, names: list[Digest]
) -> None:
    async def forgotten() -> list[Chunk]:
        request = GenerateRequest(
            "long", text(4), adapters=AdapterSet(names[0]), max_tokens=40, ignore_eos=True
        )
        heard: list[Chunk] = []
        async for chunk in backend.generate(request):
            if not heard:
                (resident,) = await asyncio.to_thread(backend.residents)
                assert (resident.digest, resident.pins) == (names[0], 1)
                backend.forget([names[0]])
            heard.append(chunk)
        return heard

    assert len(asyncio.run(forgotten())) == 40
    assert here(backend) == set()


def test_threads_may_ask_and_tell_all_at_once(
    backend: EmbeddedBackend, names: list[Digest]
) -> None:
    def hammer(number: int) -> None:
        for turn in range(30):
            digest = names[(number + turn) % 3]
            (backend.prefetch if turn % 3 else backend.forget)([digest])
            assert here(backend) <= set(names)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(hammer, range(8)))
    assert answer(backend, names[0])[-1].finish is not None
    assert backend.health().state == "ready"


def test_an_engine_in_a_long_step_is_not_waited_for(
    backend: EmbeddedBackend, names: list[Digest], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.prefetch([names[0]])
    until(lambda: here(backend) == {names[0]})
    held, opened = threading.Event(), threading.Event()

    def step(engine: Engine, now: float) -> list[Chunk]:
        held.set()
        opened.wait(20)
        return []

    monkeypatch.setattr(Engine, "step", step)
    try:
        assert held.wait(10)
        began = time.monotonic()
        assert here(backend) == {names[0]}, "as of the last look"
        backend.forget([names[0]])
        assert time.monotonic() - began < 1.0
    finally:
        opened.set()


def test_an_engine_that_has_ended_has_nothing(
    backend: EmbeddedBackend, names: list[Digest]
) -> None:
    backend.prefetch([names[0]])
    until(lambda: bool(backend.residents()))
    backend.close()
    backend.prefetch([names[1]])
    backend.forget([names[0]])
    assert backend.residents() == ()


def test_what_was_computed_for_a_tenant_is_forgotten_and_only_that(base: BaseModel) -> None:
    backend = EmbeddedBackend(Engine(base, None, EngineSettings(kv_bytes=16 << 20)))

    async def reused(tenant: str) -> int:
        request = GenerateRequest(f"r{time.monotonic_ns()}", text(40), tenant, max_tokens=1)
        *_, last = [chunk async for chunk in backend.generate(request)]
        return last.usage.cached_tokens if last.usage else -1

    async def heard(tenant: str) -> list[int]:
        return [await reused(tenant) for _ in range(3)]

    try:
        assert asyncio.run(heard("acme")) == [0, 0, 32]
        assert asyncio.run(heard("globex")) == [0, 0, 32]
        backend.forget_tenant("acme")
        assert asyncio.run(heard("acme")) == [0, 0, 32]
        assert asyncio.run(reused("globex")) == 32
    finally:
        backend.close()
