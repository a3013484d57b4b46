"""The public API through the official client: answers, streams, refusals, and one record for each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import httpx2
import openai
import pytest

from foreword.artifact import Digest
from foreword.errors import EngineFailed, Overloaded, PrefixUnavailable
from foreword.serving.contract import AdapterSet
from foreword.serving.gateway.access.tenants import Tenant
from foreword.telemetry.records import DIGEST_MISMATCH, RequestFinished, RequestRefused
from tests.gateway.edge_server import until
from tests.gateway.front_door import NAME, OTHER, FrontDoor, chat_body, front_door
from tests.registry.samples import facts
from tests.serving.scripted import text_of

V1, V2 = (facts(version, NAME).digest for version in ("1.0.0", "2.0.0"))
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def door() -> Iterator[FrontDoor]:
    with front_door() as made:
        yield made


def finished(door: FrontDoor) -> RequestFinished:
    """The one record of the one request there was."""
    until(lambda: bool(door.records))
    assert len(door.records) == 1
    assert isinstance(door.records[0], RequestFinished)
    return door.records[0]


def at_rest(door: FrontDoor) -> None:
    until(lambda: not door.edge.gate.inside)
    assert not door.backend.running
    assert not door.front.running
    assert door.front.quotas.streams == 0


# --- what is answered ----------------------------------------------------------------------------


def test_models_are_the_base_and_what_the_key_may_use(door: FrontDoor) -> None:
    assert [m.id for m in door.client().models.list()] == ["base", NAME]
    assert [m.id for m in door.client("globex").models.list()] == [OTHER]
    one = door.client().models.retrieve(f"{NAME}@2.0.0")
    assert one.foreword["digest"] == str(V2)  # type: ignore[attr-defined]
    assert one.parent == "base"  # type: ignore[attr-defined]


def test_a_chat_is_answered_by_the_version_its_receipt_names(door: FrontDoor) -> None:
    raw = door.client().chat.completions.with_raw_response.create(
        model=NAME, messages=HI, max_tokens=5, seed=1
    )
    answer, asked = raw.parse(), door.backend.asked[0]
    assert asked.adapters == AdapterSet(V1)
    assert asked.tenant == "acme"
    assert answer.choices[0].message.content == text_of(asked)
    assert answer.model == f"{NAME}@1.0.0"
    assert answer.foreword["digest"] == str(V1) == raw.headers["x-foreword-digest"]  # type: ignore[attr-defined]
    assert raw.headers["x-foreword-arm"] == "stable"
    assert answer.usage.completion_tokens == 5
    record = finished(door)
    assert (record.status, record.code, record.attached.digest) == (200, "", str(V1))
    assert record.id == raw.headers["x-request-id"]
    assert {span.name for span in record.spans} == {"authorise", "resolve", "prefill", "decode"}
    assert record.prompt_tokens == len(asked.prompt) == 3
    at_rest(door)


@pytest.mark.parametrize(
    ("model", "digest", "arm"),
    [
        (f"{NAME}@1.0.0", V1, "pinned"),
        (f"{NAME}@2.0.0", V2, "pinned"),
        (f"{NAME}@stable", V1, "stable"),
        (str(V2), V2, "pinned"),
        ("base", None, None),
    ],
)
def test_every_way_to_name_a_model(
    door: FrontDoor, model: str, digest: Digest | None, arm: str | None
) -> None:
    said = door.post("/v1/chat/completions", chat_body(model, max_tokens=1)).json()["foreword"]
    assert door.backend.asked[0].adapters.prefix == digest
    assert (said["digest"], said["arm"]) == (digest and str(digest), arm)


def test_a_stream_says_the_same_and_counts_it(door: FrontDoor) -> None:
    stream = door.client().chat.completions.create(
        model=NAME, messages=HI, max_tokens=6, n=2, stream=True, seed=1,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    asked = door.backend.asked[0]
    assert texts == [text_of(asked, 0), text_of(asked, 1)]
    assert chunks[-1].usage.completion_tokens == 12
    assert chunks[0].foreword["digest"] == chunks[-1].foreword["digest"] == str(V1)  # type: ignore[attr-defined]
    assert finished(door).stream
    assert finished(door).completion_tokens == 12


def test_several_prompts_keep_their_order(door: FrontDoor) -> None:
    answer = door.client().completions.create(
        model="base", prompt=["aa", "bb", "cc"], n=2, max_tokens=3, seed=1
    )
    by_prompt = sorted(door.backend.asked, key=lambda asked: asked.prompt)
    expected = [text_of(asked, index) for asked in by_prompt for index in (0, 1)]
    assert [choice.text for choice in answer.choices] == expected
    assert answer.usage.prompt_tokens == 6
    assert answer.usage.completion_tokens == 18
    streamed = list(door.client().completions.create(
        model="base", prompt=["aa", "bb"], max_tokens=3, stream=True, seed=1
    ))  # fmt: skip
    assert {chunk.choices[0].index for chunk in streamed} == {0, 1}
    at_rest(door)


def test_what_is_asked_reaches_the_engine(door: FrontDoor) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    door.client().chat.completions.create(
        model=NAME, messages=HI, max_tokens=2, n=2, stop=["x"], seed=7, temperature=0.5,
        logprobs=True, top_logprobs=2,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    )  # fmt: skip
    asked = door.backend.asked[0]
    assert (asked.n, asked.stop, asked.logprobs) == (2, ("x",), 2)
    assert (asked.sampling.seed, asked.sampling.temperature) == (7, 0.5)
    assert asked.constraint is not None
    assert json.loads(asked.constraint.text) == schema


def test_logprobs_have_tokens_and_bytes(door: FrontDoor) -> None:
    answer = door.client().chat.completions.create(
        model="base", messages=HI, max_tokens=2, logprobs=True, top_logprobs=3
    )
    said = answer.choices[0].logprobs.content
    assert len(said) == 2
    assert len(said[0].top_logprobs) == 3
    assert bytes(said[0].bytes).decode(errors="replace") == said[0].token


def test_tools_are_offered_and_calls_come_back(door: FrontDoor) -> None:
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'
    door.backend.say = lambda request, index: list(call)
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    for stream in (False, True):
        with httpx2.stream(
            "POST", f"{door.url}/v1/chat/completions",
            json=chat_body("base", tools=tools, stream=stream, max_tokens=200),
            headers={"Authorization": f"Bearer {door.keys['acme']}"},
        ) as response:  # fmt: skip
            body = response.read().decode()
        assert '"weather"' in body
        assert '"finish_reason":"tool_calls"' in body
        assert "<tool_call>" not in body
    assert len(door.backend.asked[0].prompt) > len("user:hi assistant:") + 30


def test_a_user_keeps_the_arm_and_shares_add_up() -> None:
    with front_door(canary=0.5) as door:
        arms = {}
        for user in map(str, range(40)):
            said = door.post("/v1/chat/completions", chat_body(user=user, max_tokens=1)).json()
            again = door.post(
                "/v1/chat/completions", chat_body(max_tokens=1), **{"X-Foreword-User": user}
            ).json()
            assert said["foreword"]["digest"] == again["foreword"]["digest"]
            arms[user] = said["foreword"]["arm"]
        assert 8 <= sum(arm == "canary" for arm in arms.values()) <= 32
        asked = {request.adapters.prefix for request in door.backend.asked}
        assert asked == {V1, V2}


# --- what is refused -----------------------------------------------------------------------------


def test_not_yours_and_not_there_look_the_same(door: FrontDoor) -> None:
    answers = [door.post("/v1/chat/completions", chat_body(name))
               for name in (OTHER, "globex/nothing", "nobody/nothing")]  # fmt: skip
    assert {answer.status_code for answer in answers} == {404}
    bodies = {answer.text.replace(name, "NAME") for answer, name in
              zip(answers, (OTHER, "globex/nothing", "nobody/nothing"), strict=True)}  # fmt: skip
    assert len(bodies) == 1
    assert not door.backend.asked
    assert all(isinstance(record, RequestRefused) for record in door.records)


def test_a_wrong_key_is_refused_and_no_key_too(door: FrontDoor) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        door.client("fwk_wrong").models.list()
    assert caught.value.code == "auth.malformed"
    assert door.get("/v1/models", tenant=None).status_code == 401
    assert door.get("/openapi.json", tenant=None).status_code == 401


def test_a_key_loses_its_right_at_once(door: FrontDoor) -> None:
    assert door.post("/v1/chat/completions", chat_body(max_tokens=1)).status_code == 200
    door.door.access = replace(door.door.access, tenants={"globex": Tenant("globex")}, keys={})
    assert door.post("/v1/chat/completions", chat_body(max_tokens=1)).status_code == 401


def test_a_field_that_is_wrong_is_named(door: FrontDoor) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        door.client().chat.completions.create(model=NAME, messages=HI, n=9)
    assert caught.value.param == "n"
    assert caught.value.code == "request.field"


def test_what_does_not_fit_the_context_is_refused_with_its_numbers(door: FrontDoor) -> None:
    length = facts("1.0.0", NAME).length
    fits = 400 - length - 3
    assert door.post("/v1/chat/completions", chat_body(max_tokens=fits)).status_code == 200
    refused = door.post("/v1/chat/completions", chat_body(max_tokens=fits + 1))
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context.too_long"
    assert all(str(number) in refused.text for number in (400, length, 401))
    bare = door.post("/v1/completions", {"model": "base", "prompt": "hi", "max_tokens": 398})
    assert bare.status_code == 200


def test_without_a_limit_an_answer_gets_what_is_left(door: FrontDoor) -> None:
    door.post("/v1/chat/completions", chat_body())
    assert door.backend.asked[0].max_tokens == 400 - facts("1.0.0", NAME).length - 3


def test_a_quota_is_settled_with_what_was_used() -> None:
    with front_door(tokens=200) as door:
        body = chat_body("base", max_tokens=60)
        door.backend.say = lambda request, index: ["a"]
        for _ in range(3):
            assert door.post("/v1/chat/completions", body).status_code == 200
        door.backend.say = None
        assert door.post("/v1/chat/completions", body).status_code == 200
        refused = door.post("/v1/chat/completions", body)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "quota.tokens"
        assert int(refused.headers["retry-after"]) >= 1
        at_rest(door)


def test_paths_and_methods_that_are_not_there(door: FrontDoor) -> None:
    assert door.get("/v1/nothing").json()["error"]["code"] == "request.path"
    wrong = door.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


# --- what goes wrong -----------------------------------------------------------------------------


def test_another_digest_than_the_routes_is_never_answered(door: FrontDoor) -> None:
    door.backend.attach = lambda adapters: AdapterSet(V2)
    answer = door.post("/v1/chat/completions", chat_body(max_tokens=3))
    assert answer.status_code == 500
    assert finished(door).code == DIGEST_MISMATCH
    assert str(V2) not in answer.text
    at_rest(door)


def test_a_digest_that_changes_in_a_stream_ends_it(door: FrontDoor) -> None:
    seen = iter([V1, V1, V2, V2])
    door.backend.attach = lambda adapters: AdapterSet(next(seen, V2))
    answer = door.post("/v1/chat/completions", chat_body(max_tokens=4, stream=True))
    assert answer.status_code == 200
    assert DIGEST_MISMATCH in answer.text
    assert "[DONE]" not in answer.text
    assert finished(door).status == 500


def test_a_stream_that_fails_ends_with_an_error_and_no_done(door: FrontDoor) -> None:
    door.backend.fails = lambda request: EngineFailed("secret inner workings", retry_after=1.0)
    door.backend.fails_after = 2
    with pytest.raises(openai.APIError) as caught:
        list(door.client().chat.completions.create(model=NAME, messages=HI, stream=True))
    assert caught.value.code == "serving.engine_failed"
    assert "secret" not in str(caught.value.body)
    assert (finished(door).status, finished(door).completion_tokens) == (503, 2)
    at_rest(door)


def test_an_error_before_the_first_token_has_a_status(door: FrontDoor) -> None:
    door.backend.fails = lambda request: Overloaded("full", retry_after=3.2)
    answer = door.post("/v1/chat/completions", chat_body(stream=True))
    assert answer.status_code in (429, 503)
    assert answer.headers["retry-after"] == "4"
    assert answer.headers["x-foreword-prefix"] == NAME
    assert "x-foreword-digest" not in answer.headers


def test_a_bug_says_nothing_about_itself(door: FrontDoor) -> None:
    door.backend.fails = lambda request: ValueError("the prompt was hi")
    answer = door.post("/v1/chat/completions", chat_body())
    assert answer.status_code == 500
    assert "prompt" not in answer.text
    assert finished(door).code == "bug"


def test_a_prefix_that_cannot_be_had_is_an_error_unless_the_policy_says_otherwise(
    door: FrontDoor,
) -> None:
    def gone(request: object) -> PrefixUnavailable | None:
        adapters = getattr(request, "adapters", None)
        return PrefixUnavailable("gone", code="prefix.fetch_failed") if adapters.prefix else None

    door.backend.fails = gone
    assert door.post("/v1/chat/completions", chat_body(max_tokens=1)).status_code == 503
    tenants = dict(door.door.access.tenants)
    tenants["acme"] = Tenant("acme", base=True, fallback="base")
    door.door.access = replace(door.door.access, tenants=tenants)
    answer = door.post("/v1/chat/completions", chat_body(max_tokens=1))
    assert answer.status_code == 200
    fallback = answer.json()["foreword"]["fallback"]
    assert fallback == {"wanted": f"{NAME}@1.0.0", "reason": "prefix.fetch_failed"}
    assert answer.headers["x-foreword-fallback"] == "prefix.fetch_failed"
    assert answer.json()["model"] == "base"
    until(lambda: len(door.records) == 2)  # told after the answer has gone out
    record = door.records[-1]
    assert isinstance(record, RequestFinished)
    assert (record.fallback, record.attached.digest) == ("prefix.fetch_failed", "")


def test_nothing_stands_in_after_the_first_token(door: FrontDoor) -> None:
    door.door.access = replace(
        door.door.access,
        tenants={**door.door.access.tenants, "acme": Tenant("acme", base=True, fallback="base")},
    )
    door.backend.fails = lambda request: PrefixUnavailable("gone", code="prefix.fetch_failed")
    door.backend.fails_after = 1
    answer = door.post("/v1/chat/completions", chat_body(max_tokens=3))
    assert answer.status_code == 503
    assert len(door.backend.asked) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_is_given_up_and_counted(door: FrontDoor, stream: bool) -> None:
    door.backend.pause = 0.05
    body = chat_body(max_tokens=300, stream=stream)
    headers = {"Authorization": f"Bearer {door.keys['acme']}"}
    with (
        httpx2.Client(timeout=0.4) as client,
        pytest.raises(httpx2.TimeoutException) if not stream else nullcontext(),
        client.stream("POST", f"{door.url}/v1/chat/completions", json=body, headers=headers) as got,
    ):
        next(iter(got.iter_lines()))
    began = time.monotonic()
    until(lambda: bool(door.backend.cancelled))
    assert time.monotonic() - began < 1
    assert finished(door).status == 499
    at_rest(door)


def test_a_stopping_gateway_ends_what_runs_with_a_typed_error(door: FrontDoor) -> None:
    door.backend.pause = 0.05
    headers = {"Authorization": f"Bearer {door.keys['acme']}"}
    with httpx2.stream(
        "POST", f"{door.url}/v1/chat/completions", json=chat_body(max_tokens=300, stream=True),
        headers=headers, timeout=20,
    ) as got:  # fmt: skip
        lines = got.iter_lines()
        next(lines)
        door.edge.gate.drain()
        refused = door.post("/v1/chat/completions", chat_body(max_tokens=1))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        for name in tuple(door.front.running):
            door.backend.cancel(name)
        rest = "\n".join(lines)
    assert "serving.cancelled" in rest
    assert "[DONE]" not in rest


# --- health and description ----------------------------------------------------------------------


def test_a_wedged_engine_is_not_alive(door: FrontDoor) -> None:
    assert door.get("/livez", tenant=None).json() == {"live": True}
    door.backend.state = "wedged"
    assert door.get("/livez", tenant=None).status_code == 503


def test_the_description_names_every_path_and_status_it_answers(door: FrontDoor) -> None:
    described = door.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/{model}",
        "/openapi.json", "/livez", "/readyz",
    }  # fmt: skip
    answers = described["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert set(answers["200"]["content"]) == {"application/json", "text/event-stream"}
    assert {"400", "401", "404", "405", "413", "415", "429", "503", "504"} <= set(answers)
