"""An engine in another process, seen by its gateway: the same answers, the same errors, no leftovers."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import httpx2
import pytest

from foreword.artifact import Digest
from foreword.errors import (
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    EngineFailed,
    ForewordError,
    Overloaded,
    PrefixUnavailable,
    UsageError,
)
from foreword.serving.contract import (
    AdapterSet,
    Chunk,
    Constraint,
    Finish,
    GenerateRequest,
    Sampling,
)
from foreword.serving.engine.backend import EmbeddedBackend
from foreword.serving.upstream.asking import ask_base
from foreword.serving.upstream.client import HttpBackend, Timeouts
from foreword.serving.upstream.secret import Secret
from tests.serving.asking import ask, engine_with, loaded, text
from tests.serving.scripted import ScriptedBackend, text_of, tokens_of
from tests.tiny import tiny_base
from tests.upstream.engine_port import BASE, FAST, SECRET, chunks_of, happens, reached, served

PREFIX = Digest.of(b"a prefix")
HEADERS = {**SECRET.headers, "X-Foreword-Base": str(BASE.fingerprint)}


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(limited())


def request(number: int = 0, **options: Any) -> GenerateRequest:
    options = {"max_tokens": 5, "adapters": AdapterSet(PREFIX), **options}
    return GenerateRequest(f"r/{number}?", (1, 2, number), **options)


async def _to_the_end(stream: AsyncIterator[Chunk]) -> None:
    async for _ in stream:
        pass


async def error_of(backend: HttpBackend, asked: GenerateRequest) -> ForewordError:
    with pytest.raises(ForewordError) as caught:
        await chunks_of(backend, asked)
    return caught.value


# --- answers -------------------------------------------------------------------------------------


def test_every_field_of_a_request_arrives_and_every_chunk_comes_back() -> None:
    scripted = ScriptedBackend()
    asked = request(
        tenant="acme", sampling=Sampling(temperature=0.7, seed=5), stop=("a", "ü"), stop_ids=(3,),
        ignore_eos=True, n=3, logprobs=2, constraint=Constraint("regex", "a*"), priority=-1,
    )  # fmt: skip

    async def both() -> tuple[list[Chunk], list[Chunk]]:
        async with reached(scripted) as backend:
            return await chunks_of(backend, asked), await chunks_of(scripted, asked)

    there, here = run(both())
    assert there == here
    assert "".join(chunk.text for chunk in there if chunk.index == 1) == text_of(asked, 1)
    assert scripted.asked[0] == asked
    assert not scripted.cancelled


def test_fifty_streams_at_once_each_get_their_own_answer() -> None:
    scripted = ScriptedBackend(pause=0.005)
    asked = [request(n, adapters=AdapterSet(Digest.of(bytes([n])))) for n in range(50)]

    async def all_of_them() -> list[list[Chunk]]:
        async with reached(scripted) as backend:
            return await asyncio.gather(*(chunks_of(backend, each) for each in asked))

    for each, chunks in zip(asked, run(all_of_them()), strict=True):
        assert [token for chunk in chunks for token in chunk.tokens] == tokens_of(each)
        assert {chunk.adapters for chunk in chunks} == {each.adapters}


def test_the_real_engine_says_the_same_over_http() -> None:
    base = tiny_base()
    prefix = loaded(base, 1)
    asked = [
        ask(text(5), prefix, max_tokens=8, logprobs=3),
        ask(text(4), max_tokens=8, n=2, sampling=Sampling(temperature=1.0, seed=3)),
        ask(text(3), max_tokens=4, constraint=Constraint("regex", "ab")),
    ]
    engine = EmbeddedBackend(engine_with(base, prefix))

    async def both() -> list[tuple[list[Chunk], list[Chunk]]]:
        async with reached(engine) as backend:
            return [
                (await chunks_of(backend, each), await chunks_of(engine, each)) for each in asked
            ]

    try:
        for there, here in run(both()):
            assert [replace(chunk, usage=None, beginning=None) for chunk in there] == [
                replace(chunk, usage=None, beginning=None) for chunk in here
            ]
            assert [chunk.beginning is not None for chunk in there] == [
                chunk is there[0] for chunk in there
            ]
            assert len(there) >= 2
            assert there[-1].finish is not None
    finally:
        engine.close()


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("no room", code="serving.queue_full", retry_after=2.5),
        PrefixUnavailable("cannot be had", code="prefix.fetch_failed", retry_after=1.0),
        UsageError("no such token", code="request.prompt"),
        DeadlineExceeded("too late"),
    ],
)
@pytest.mark.parametrize("after", [0, 2])
def test_an_error_of_the_engine_is_raised_as_the_same_error(
    error: ForewordError, after: int
) -> None:
    heard: list[Chunk] = []

    async def listen(backend: HttpBackend) -> None:
        async for chunk in backend.generate(request()):
            heard.append(chunk)

    async def failed() -> ForewordError:
        scripted = ScriptedBackend(fails=lambda asked: error, fails_after=after)
        async with reached(scripted) as backend:
            with pytest.raises(type(error)) as caught:
                await listen(backend)
            return caught.value

    raised = run(failed())
    assert (str(raised), raised.code) == (str(error), error.code)
    assert getattr(raised, "retry_after", None) == getattr(error, "retry_after", None)
    assert len(heard) == after


def test_a_bug_of_the_engine_is_an_engine_failure_without_details() -> None:
    scripted = ScriptedBackend(fails=lambda asked: ValueError("canary"))

    async def failed() -> ForewordError:
        async with reached(scripted) as backend:
            return await error_of(backend, request())

    error = run(failed())
    assert isinstance(error, EngineFailed)
    assert "canary" not in str(error)


def test_an_engine_that_is_not_there_is_told_with_when_to_ask_again() -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        async def failed() -> ForewordError:
            async with HttpBackend(url, SECRET, BASE.fingerprint, FAST) as backend:
                assert backend.health().state == "failed"
                return await error_of(backend, request())

        error = run(failed())
    assert (type(error), error.code) == (EngineFailed, "engine.unreachable")
    assert cast("EngineFailed", error).retry_after == 1.0


def test_an_engine_that_dies_in_an_answer_ends_it_with_an_error_and_comes_back() -> None:
    scripted = ScriptedBackend(pause=0.05)

    async def died() -> None:
        with served(scripted) as port:
            async with HttpBackend(port.url, SECRET, BASE.fingerprint, FAST) as backend:
                stream = cast("AsyncGenerator[Chunk]", backend.generate(request(max_tokens=500)))
                await anext(stream)
                dying = asyncio.create_task(asyncio.to_thread(port.stop))
                with pytest.raises(EngineFailed) as caught:
                    await _to_the_end(stream)
                assert caught.value.code == "engine.unreachable"
                await dying
                await happens(lambda: backend.health().state == "failed")
                assert backend.residents() == ()
                with served(scripted, port=int(port.url.rsplit(":")[-1])):
                    await happens(lambda: backend.health().state == "ready")
                    assert len(await chunks_of(backend, request(1))) == 5

    run(died())


def test_silence_is_waited_out_while_the_engine_is_well_and_not_after() -> None:
    patient = ScriptedBackend(first=1.3)
    wedged = ScriptedBackend(first=20.0, state="wedged")

    async def both() -> ForewordError:
        async with reached(patient) as backend:
            assert len(await chunks_of(backend, request())) == 5
        async with reached(wedged) as backend:
            began = time.monotonic()
            error = await error_of(backend, request())
            assert 0.9 < time.monotonic() - began < 5
            await happens(lambda: wedged.cancelled == ["r/0?"])
            return error

    assert run(both()).code == "engine.unreachable"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad",
        b"rubbish\r\n\r\n",
    ],
)
def test_what_is_no_engine_is_an_engine_failure(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()

        async def failed() -> ForewordError:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with HttpBackend(url, SECRET, BASE.fingerprint, FAST) as backend:
                assert backend.health().state == "failed"
                return await error_of(backend, request())

        assert isinstance(run(failed()), EngineFailed)


# --- going away ----------------------------------------------------------------------------------


def test_a_consumer_that_goes_away_ends_the_request_at_the_engine() -> None:
    scripted = ScriptedBackend(pause=0.01)

    async def leaves() -> None:
        async with reached(scripted) as backend:
            asked = request(max_tokens=5000)
            stream = cast("AsyncGenerator[Chunk]", backend.generate(asked))
            async with aclosing(stream):
                await anext(stream)
            await happens(lambda: scripted.cancelled == [asked.id])
            task = asyncio.create_task(chunks_of(backend, request(1, max_tokens=5000)))
            await happens(lambda: "r/1?" in scripted.running)
            task.cancel()
            await happens(lambda: not scripted.running)

    run(leaves())


def test_a_client_that_is_cut_off_before_the_first_token_is_noticed() -> None:
    scripted = ScriptedBackend(first=30.0)

    async def leaves() -> None:
        async with reached(
            scripted, beat=20.0
        ) as backend:  # no line will run into the closed socket
            task = asyncio.create_task(chunks_of(backend, request()))
            await happens(lambda: bool(scripted.running))
            task.cancel()
            await happens(lambda: not scripted.running, 2.0)

    run(leaves())


def test_cancel_ends_the_stream_with_cancelled() -> None:
    scripted = ScriptedBackend(pause=0.05)

    async def cancelled() -> ForewordError:
        async with reached(scripted) as backend:
            asked = request(max_tokens=500)
            task = asyncio.create_task(error_of(backend, asked))
            await happens(lambda: bool(scripted.running))
            backend.cancel("nobody")
            backend.cancel(asked.id)
            return await task

    assert isinstance(run(cancelled()), Cancelled)


# --- the state of an engine ----------------------------------------------------------------------


def test_health_capacity_and_residents_are_those_of_a_moment_ago() -> None:
    scripted = ScriptedBackend(slots=7, first=0.3)

    async def followed() -> None:
        async with reached(scripted) as backend:
            assert backend.health().state == "ready", "it is asked before anybody uses it"
            last = backend.health().last_step
            assert last is not None
            assert abs(time.monotonic() - last) < 1
            assert backend.capacity().slots == 7
            task = asyncio.create_task(chunks_of(backend, request()))
            await happens(lambda: backend.capacity().running == 1)
            scripted.state = "draining"
            await happens(lambda: backend.health().state == "draining")
            await task

    run(followed())


def test_prefixes_are_prefetched_and_forgotten_from_any_thread() -> None:
    scripted = ScriptedBackend()

    async def told() -> None:
        async with reached(scripted) as backend:
            await asyncio.to_thread(backend.prefetch, [PREFIX, Digest.of(b"b")])
            await happens(lambda: {each.digest for each in backend.residents()} >= {PREFIX})
            await asyncio.to_thread(backend.forget, [PREFIX])
            await happens(lambda: PREFIX not in {each.digest for each in backend.residents()})

    run(told())
    assert scripted.prefetched == [PREFIX, Digest.of(b"b")]
    assert scripted.forgotten == [PREFIX]


def test_what_was_revoked_while_the_engine_was_away_is_forgotten_when_it_is_back() -> None:
    scripted = ScriptedBackend(resident={PREFIX})

    async def told() -> None:
        with served(scripted) as first:
            port = int(first.url.rsplit(":")[-1])
            backend = HttpBackend(first.url, SECRET, BASE.fingerprint, FAST)
            backend.forget([PREFIX])  # nobody has entered it yet
            first.stop()
            async with backend:
                await happens(lambda: backend.health().state == "failed")
                await asyncio.sleep(0.1)
                assert scripted.resident
                with served(scripted, port=port):
                    await happens(lambda: not scripted.resident)

    run(told())


def test_tenants_are_forgotten_once_also_if_the_engine_was_away() -> None:
    scripted, names = ScriptedBackend(), ["acme", "o/dd?name", "third"]

    async def told() -> None:
        with served(scripted) as first:
            port = int(first.url.rsplit(":")[-1])
            async with HttpBackend(first.url, SECRET, BASE.fingerprint, FAST) as backend:
                backend.forget_tenant(names[0])
                await happens(lambda: scripted.forgotten_tenants == names[:1])
                first.stop()
                for name in names[1:]:
                    backend.forget_tenant(name)
                await happens(lambda: backend.health().state == "failed")
                with served(scripted, port=port):
                    await happens(lambda: scripted.forgotten_tenants == names)

    run(told())


def test_the_real_engine_prefetches_forgets_and_tells_over_http() -> None:
    base = tiny_base()
    prefix = loaded(base, 1)
    engine = EmbeddedBackend(engine_with(base, prefix))

    async def told() -> None:
        async with reached(engine) as backend:
            await happens(lambda: [r.digest for r in backend.residents()] == [prefix.digest])
            backend.forget([prefix.digest])
            await happens(lambda: not backend.residents())
            assert isinstance(await error_of(backend, ask(text(3), prefix)), PrefixUnavailable)

    try:
        run(told())
    finally:
        engine.close()


# --- who may -------------------------------------------------------------------------------------

_PATHS = [
    ("POST", "generate"), ("DELETE", "requests/x"), ("GET", "capacity"), ("GET", "health"),
    ("GET", "residents"), ("POST", "prefetch"), ("POST", "forget"), ("GET", "nothing"),
    ("DELETE", "tenants/x"),
]  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer another-secret-of-the-same-size"},
        {"authorization": HEADERS["Authorization"] + "x"},
        {"authorization": HEADERS["Authorization"].removeprefix("Bearer ")},
        {"authorization": HEADERS["Authorization"].encode() + b"\xff"},
        [("authorization", HEADERS["Authorization"]), ("authorization", "Bearer x")],
    ],
)
def test_nothing_is_told_without_the_secret(headers: Any) -> None:
    scripted = ScriptedBackend()
    with served(scripted) as port:
        for method, path in [*_PATHS, ("GET", "../../docs")]:
            told = httpx2.request(method, f"{port.url}/engine/v1/{path}", headers=headers)
            assert told.status_code == 401
            assert "canary" not in told.text
    assert not scripted.asked


def test_another_secret_is_the_operators_fault_and_not_the_clients() -> None:
    async def failed() -> ForewordError:
        with served(ScriptedBackend()) as port:
            async with HttpBackend(port.url, Secret("x" * 32), BASE.fingerprint, FAST) as backend:
                assert backend.health().state == "failed"
                return await error_of(backend, request())

    assert (type(error := run(failed())), error.code) == (EngineFailed, "engine.refused")


def test_bodies_are_bounded_and_read_strictly() -> None:
    with served(ScriptedBackend()) as port:
        for body, status in [
            (b"x" * (17 << 20), 400),
            (b"{}", 400),
            (b'{"v":1,"digests":[1]}', 400),
        ]:
            for path in ("generate", "forget"):
                told = httpx2.post(f"{port.url}/engine/v1/{path}", content=body, headers=HEADERS)
                assert told.status_code == status
                assert json.loads(told.content)["error"]["code"] == "engine.document"
        missing = httpx2.get(f"{port.url}/engine/v1/generate", headers=HEADERS)
        assert (missing.status_code, missing.json()["error"]["code"]) == (405, "engine.path")


@pytest.mark.parametrize("secret", ["", "short", "x" * 15, "ü" * 20, "x" * 20 + "\n"])
def test_a_weak_secret_is_refused(secret: str) -> None:
    with pytest.raises(ConfigError):
        Secret(secret)


@pytest.mark.parametrize("url", ["", "10.0.0.5:8100", "ftp://x", "http://", "http://u:p@host"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HttpBackend(url, SECRET, BASE.fingerprint)
    assert caught.value.code == "engine.url"


def test_finish_survives() -> None:
    asked = request()
    scripted = ScriptedBackend(say=lambda asked, index: ["a", "b"])

    async def heard() -> list[Chunk]:
        async with reached(scripted) as backend:
            return await chunks_of(backend, asked)

    chunks = run(heard())
    assert [chunk.finish for chunk in chunks] == [None, Finish.STOP]
    assert Timeouts().silence >= 3 * 5.0


def test_an_engine_of_another_base_refuses_what_was_made_for_this_one() -> None:
    engine = ScriptedBackend()

    async def ask_as(base: Digest) -> tuple[str, str]:
        with served(engine) as port:
            async with HttpBackend(port.url, SECRET, base, FAST) as backend:
                with pytest.raises(EngineFailed) as refused:
                    await chunks_of(backend, request())
                return refused.value.code, backend.health().detail

    assert run(ask_as(Digest.of(b"another"))) == ("engine.base", "it does not answer (engine.base)")
    assert engine.asked == []


def test_a_gateway_asks_which_base_there_is_and_waits_for_it() -> None:
    with served(ScriptedBackend()) as port:
        assert ask_base(port.url, SECRET, 5.0) == BASE
        with pytest.raises(EngineFailed, match="secret") as refused:
            ask_base(port.url, Secret("x" * 32), 5.0)
        assert refused.value.code == "engine.refused"
    waited: list[int] = []
    with pytest.raises(EngineFailed) as missing:
        ask_base(port.url, SECRET, 0.6, lambda: waited.append(1))
    assert (missing.value.code, waited) == ("engine.unreachable", [1])
