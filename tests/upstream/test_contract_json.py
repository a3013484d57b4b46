"""What crosses the wire between gateway and engine comes out as what it was, or not at all."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.artifact import BaseRef, Digest
from foreword.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineFailed,
    ForewordError,
    Overloaded,
    PrefixUnavailable,
    PromptTooLong,
    UsageError,
)
from foreword.serving.contract import (
    AdapterSet,
    Beginning,
    Capacity,
    Chunk,
    Constraint,
    Finish,
    GenerateRequest,
    Health,
    Phase,
    ResidentPrefix,
    Sampling,
    TokenLogprob,
    Usage,
)
from foreword.serving.upstream.base_json import base_from_bytes, base_to_json
from foreword.serving.upstream.chunk_json import chunk_from_bytes, chunk_to_json
from foreword.serving.upstream.contract_json import (
    capacity_from_bytes,
    capacity_to_json,
    digests_from_bytes,
    digests_to_json,
    health_from_bytes,
    health_to_json,
    request_from_bytes,
    request_to_json,
    residents_from_bytes,
    residents_to_json,
)
from foreword.serving.upstream.documents import to_bytes
from foreword.serving.upstream.errors_json import error_from_bytes, error_to_json
from tests.upstream.engine_port import BASE

integers = st.integers(-(2**62), 2**62)
tokens = st.lists(st.integers(0, 2**31), max_size=5).map(tuple)
numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
digests = st.binary(max_size=4).map(Digest.of)
adapters = st.builds(AdapterSet, st.none() | digests)
logprobs = st.floats(max_value=0, allow_nan=False) | st.just(-math.inf)
said = st.builds(
    TokenLogprob,
    st.integers(0, 2**31),
    logprobs,
    st.lists(st.tuples(st.integers(0, 2**31), logprobs), max_size=3).map(tuple),
)
beginnings = st.builds(
    Beginning,
    st.sampled_from(["", "device", "host", "disk", "fetch"]),
    numbers,
    st.lists(st.builds(Phase, texts, numbers, numbers), max_size=3).map(tuple),
)
usages = st.builds(Usage, integers, integers, integers)
requests = st.builds(
    GenerateRequest,
    id=texts,
    prompt=tokens,
    tenant=texts,
    adapters=adapters,
    max_tokens=integers,
    sampling=st.builds(
        Sampling,
        numbers, numbers, integers, numbers, numbers, numbers, numbers, st.none() | integers,
    ),
    stop=st.lists(texts, max_size=3).map(tuple),
    stop_ids=tokens,
    ignore_eos=st.booleans(),
    n=integers,
    logprobs=st.none() | integers,
    constraint=st.none() | st.builds(Constraint, st.sampled_from(["json_schema", "regex"]), texts),
    priority=integers,
)  # fmt: skip
chunks = st.builds(
    Chunk, texts, integers, texts, tokens, adapters, st.lists(said, max_size=3).map(tuple),
    st.none() | st.sampled_from(Finish), st.none() | usages, st.none() | beginnings,
)  # fmt: skip


@given(requests)
@settings(max_examples=200)
def test_a_request_comes_out_as_it_went_in(request: GenerateRequest) -> None:
    assert request_from_bytes(to_bytes(request_to_json(request, 5.0)), 9.0) == request


@given(chunks)
@settings(max_examples=200)
def test_a_chunk_comes_out_as_it_went_in(chunk: Chunk) -> None:
    assert chunk_from_bytes(to_bytes(chunk_to_json(chunk))) == chunk


@given(
    st.builds(Capacity, *[integers] * 7),
    st.lists(st.builds(ResidentPrefix, digests, integers, integers)),
)
def test_what_is_told_of_an_engine_comes_out_as_it_went_in(
    capacity: Capacity, residents: list[ResidentPrefix]
) -> None:
    assert capacity_from_bytes(to_bytes(capacity_to_json(capacity))) == capacity
    assert residents_from_bytes(to_bytes(residents_to_json(residents))) == tuple(residents)
    names = [each.digest for each in residents]
    assert digests_from_bytes(to_bytes(digests_to_json(names))) == tuple(names)


@pytest.mark.parametrize("base", [BASE, BaseRef("m", Digest.of(b"m"), None, "gpt2", None)])
def test_a_base_comes_out_as_it_went_in(base: BaseRef) -> None:
    assert base_from_bytes(to_bytes(base_to_json(base))) == base


def test_moments_are_moved_to_the_other_clock() -> None:
    request = GenerateRequest("r", (1,), deadline=107.5)
    assert request_from_bytes(to_bytes(request_to_json(request, 100.0)), 5.0).deadline == 12.5
    health = Health("wedged", 98.0, "a step does not end")
    moved = health_from_bytes(to_bytes(health_to_json(health, 100.0)), 5.0)
    assert moved == Health("wedged", 3.0, "a step does not end")


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("no room", code="serving.queue_full", retry_after=2.5),
        PrefixUnavailable("cannot be had", code="prefix.fetch_failed", retry_after=0.0),
        Cancelled("given up"),
        DeadlineExceeded("late"),
        EngineFailed("broke", code="engine.no_token"),
        UsageError("wrong", code="request.prompt"),
        PromptTooLong("long"),
    ],
)
def test_an_error_keeps_its_class_its_code_and_its_wait(error: ForewordError) -> None:
    data = to_bytes(error_to_json(error))
    again = error_from_bytes(data)
    assert (type(again), str(again), again.code) == (type(error), str(error), error.code)
    assert getattr(again, "retry_after", None) == getattr(error, "retry_after", None)
    with pytest.raises(type(error)):
        chunk_from_bytes(data)


def test_an_error_that_is_not_ours_tells_nothing() -> None:
    data = to_bytes(error_to_json(ValueError("canary")))
    assert isinstance(error_from_bytes(data), EngineFailed)
    assert b"canary" not in data


def _document(**changes: Any) -> bytes:
    request = GenerateRequest("r", (1, 2), constraint=Constraint("regex", "a"))
    document = {"v": 1, **json.loads(json.dumps(request_to_json(request, 0.0)))}
    document |= changes
    return json.dumps({k: v for k, v in document.items() if v != "gone"}).encode()


@pytest.mark.parametrize(
    "data",
    [
        _document(v=2),
        _document(v="gone"),
        _document(priority="gone"),
        _document(more=1),
        _document(id=5),
        _document(n=1.0),
        _document(n=True),
        _document(prompt=[1, "2"]),
        _document(prompt=[-1]),
        _document(adapters={"prefix": "sha256:zz"}),
        _document(adapters={"prefix": None, "more": 1}),
        _document(sampling={}),
        _document(constraint={"kind": "grammar", "text": ""}),
        _document(ignore_eos=1),
        b"[]",
        b"{",
        b'{"v": 1, "v": 1}',
        b'{"v": 1, "id": NaN}',
        b"\xff",
    ],
)
def test_what_is_not_a_request_of_this_version_is_refused(data: bytes) -> None:
    assert request_from_bytes(_document(), 0.0).prompt == (1, 2)
    with pytest.raises(UsageError) as caught:
        request_from_bytes(data, 0.0)
    assert caught.value.code == "engine.document"


@pytest.mark.parametrize(
    "spoiled",
    [
        {"token": 1, "logprob": "inf", "others": [], "logprobs": []},
        {"token": 1, "logprob": -1.0, "others": [1], "logprobs": []},
        {"token": 1.0, "logprob": -1.0, "others": [], "logprobs": []},
        {"token": 1, "logprob": -1.0, "others": None, "logprobs": None},
        {"token": 1, "logprob": -1.0, "others": [], "logprobs": [], "more": 1},
        {"token": 1, "others": [], "logprobs": []},
    ],
)
def test_log_probabilities_of_another_form_are_refused(spoiled: dict[str, Any]) -> None:
    chunk = chunk_to_json(Chunk("r", 0, "", (), AdapterSet()))
    with pytest.raises(UsageError) as caught:
        chunk_from_bytes(to_bytes({**chunk, "logprobs": [spoiled]}))
    assert caught.value.code == "engine.document"


def test_a_number_that_json_cannot_hold_is_not_sent() -> None:
    request = GenerateRequest("r", (1,), sampling=Sampling(temperature=math.nan))
    with pytest.raises(UsageError):
        to_bytes(request_to_json(request, 0.0))
