"""OpenAI's own client against `foreword serve`: a process with a real engine, registry, trust and keys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from foreword.artifact import Digest
from foreword.serving.gateway.access.keys import issue
from foreword.serving.gateway.access.kills import Kill
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import Limits, Tenant
from tests.gateway.edge_server import until
from tests.gateway.served import NAME, Ground, by, home_at, save_model, serving
from tests.reliability.report import LONG
from tests.serving.prefix_samples import POLICY

CHAT = (
    "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}</s>{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}<s>assistant:"
)
HI: Any = [{"role": "user", "content": "hi"}]
CHATTING = {"foreword": {"prompt": "chat"}}
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Bern", "Rom"]}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}
WEATHER: Any = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'
CITIES = ("Bern", "Rom", "Paris", "Wien", "Prag", "Riga", "Kiew", "Genf", "Bonn", "Lyon") * 4
SPECIAL = ("<pad>", "<s>", "<unk>")


@dataclass(frozen=True)
class Served:
    ground: Ground
    url: str
    one: Digest
    two: Digest

    def client(self, key: str | None = None) -> OpenAI:
        return OpenAI(
            base_url=f"{self.url}/v1", api_key=key or self.ground.key, max_retries=0, timeout=60
        )

    def said(self, user: str = "", model: str = NAME) -> dict[str, Any]:
        """The receipt of a short answer."""
        answer = self.client().chat.completions.create(
            model=model, messages=HI, max_tokens=1, user=user or "somebody"
        )
        told: dict[str, Any] = answer.foreword  # type: ignore[attr-defined]
        return told

    def change(self, change: Any) -> None:
        self.ground.access.change(change, by=by("a test"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    model = save_model(tmp_path_factory.mktemp("chat") / "model", context=2_000, chat=CHAT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREWORD_HOME", str(home))
        patch.delenv("FOREWORD_REGISTRY", raising=False)
        with home_at(home, model) as ground:
            one, two = ground.publish(1, "1.0.0"), ground.publish(2, "2.0.0")
            ground.registry.release(NAME + "@1.0.0", policy=POLICY, by=by())
            with serving(model) as process:
                yield Served(ground, process.url, one, two)


def test_models_are_the_base_and_what_the_key_may_use(served: Served) -> None:
    listed = served.client().models.list().data
    assert [each.id for each in listed] == ["base", NAME]
    assert listed[1].parent == "base"  # type: ignore[attr-defined]
    one = served.client().models.retrieve(NAME)
    assert one.foreword["digest"] == str(served.one)  # type: ignore[attr-defined]
    pinned = served.client().models.retrieve(f"{NAME}@2.0.0")
    assert pinned.foreword["version"] == "2.0.0"  # type: ignore[attr-defined]


def test_a_chat_and_its_stream_are_the_same_answer(served: Served) -> None:
    asked: Any = {"model": NAME, "messages": HI, "max_tokens": 12, "temperature": 0.8, "seed": 5}
    whole = served.client().chat.completions.create(**asked)
    again = served.client().chat.completions.create(**asked)
    assert whole.choices[0].message.content == again.choices[0].message.content
    chunks = list(served.client().chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ))  # fmt: skip
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details}
    )
    assert chunks[-1].usage.completion_tokens == 12
    other = served.client().chat.completions.create(**{**asked, "seed": 6})
    assert other.choices[0].message.content != whole.choices[0].message.content


def test_several_answers_stop_texts_and_logprobs(served: Served) -> None:
    answer = served.client().chat.completions.create(
        model=NAME, messages=HI, max_tokens=30, n=3, seed=1, logprobs=True, top_logprobs=2
    )
    texts = [choice.message.content or "" for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    said = answer.choices[0].logprobs
    assert said is not None
    tokens = [each.token for each in said.content or []]
    assert "".join(token for token in tokens if token not in SPECIAL) == texts[0]
    assert all(
        len(each.top_logprobs) == 2 and each.logprob <= 0 and each.bytes == [*each.token.encode()]
        for each in said.content or []
    )
    stop = texts[0][9]
    stopped = served.client().chat.completions.create(
        model=NAME, messages=HI, max_tokens=30, n=3, seed=1, stop=[stop]
    )
    assert stopped.choices[0].message.content == texts[0].partition(stop)[0]
    assert stopped.choices[0].finish_reason == "stop"


def test_completions_of_texts_and_tokens(served: Served) -> None:
    answer = served.client().completions.create(
        model="base", prompt=["ab", "cd"], max_tokens=4, temperature=0
    )
    ids = [4 + 1 + ord(c) - 32 for c in "ab"]  # after the special tokens and the line break
    alone = served.client().completions.create(
        model="base", prompt=[ids], max_tokens=4, temperature=0
    )
    assert len(answer.choices) == 2
    assert alone.choices[0].text == answer.choices[0].text
    assert alone.model == "base"


def test_an_answer_is_held_to_a_schema(served: Served) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    for seed in range(4):
        answer = served.client().chat.completions.create(
            model=NAME, messages=HI, max_tokens=200, seed=seed, response_format=form
        )
        said = json.loads(answer.choices[0].message.content or "")
        assert said["city"] in ("Bern", "Rom")
        assert isinstance(said["warm"], bool)
        assert answer.choices[0].finish_reason == "stop"


def test_tools_and_earlier_calls_are_put_to_the_model(served: Served) -> None:
    asked: Any = {"model": NAME, "max_tokens": 2, "extra_body": CHATTING}

    def prompt_tokens(messages: Any, **more: Any) -> int:
        answer = served.client().chat.completions.create(messages=messages, **asked, **more)
        assert answer.usage
        return answer.usage.prompt_tokens

    offered = prompt_tokens(HI, tools=WEATHER)
    assert offered > prompt_tokens(HI) + 80
    assert prompt_tokens(HI, tools=WEATHER, tool_choice="none") == prompt_tokens(HI)
    call = {"name": "weather", "arguments": '{"city": "Bern"}'}
    told: Any = [
        *HI,
        {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"},
    ]
    assert prompt_tokens(told, tools=WEATHER) > offered + len("18 degrees")
    with pytest.raises(openai.BadRequestError) as caught:
        prompt_tokens(HI, tools=WEATHER, tool_choice="required")
    assert caught.value.param == "tool_choice"


def test_errors_have_the_classes_of_the_client(served: Served) -> None:
    few, record = issue("acme", datetime.now(UTC), limits=Limits(requests=1))
    served.change(lambda table: table.with_key(record))
    until(lambda: _models(served, few) is None, 5)
    cases: list[tuple[type[openai.APIStatusError], str, str | None, dict[str, Any]]] = [
        (openai.AuthenticationError, "auth.malformed", "fwk_wrong", {}),
        (openai.NotFoundError, "model.not_found", None, {"model": "globex/secret"}),
        (openai.BadRequestError, "request.field", None, {"n": 99}),
        (openai.BadRequestError, "context.too_long", None, {"max_tokens": 1_999}),
        (openai.BadRequestError, "request.field", None, {"temperature": -1}),
        (openai.RateLimitError, "quota.requests", few, {}),
    ]
    asked: Any = {"model": NAME, "messages": HI, "max_tokens": 1}
    assert served.client(few).chat.completions.create(**asked)
    for kind, code, key, change in cases:
        with pytest.raises(kind) as caught:
            served.client(key).chat.completions.create(**{**asked, **change})
        assert type(caught.value) is kind
        assert caught.value.code == code
        assert caught.value.request_id
    assert int(caught.value.response.headers["retry-after"]) >= 1


def _models(served: Served, key: str) -> str | None:
    """Code of the refusal."""
    try:
        served.client(key).models.list()
    except openai.APIStatusError as error:
        return error.code
    return None


def test_a_canary_a_promotion_and_a_rollback_take_effect_within_a_second(served: Served) -> None:
    registry = served.ground.registry
    registry.release(NAME + "@2.0.0", 0.5, policy=POLICY, by=by())
    users = [f"user-{number}" for number in range(24)]
    until(lambda: {served.said(user)["arm"] for user in users} == {"stable", "canary"})
    first = {user: served.said(user)["digest"] for user in users}
    assert set(first.values()) == {str(served.one), str(served.two)}
    assert {user: served.said(user)["digest"] for user in users} == first
    # Somebody who had the first version: the others would not tell a canary from a promotion.
    stable = next(user for user in users if first[user] == str(served.one))
    registry.release(NAME + "@2.0.0", policy=POLICY, by=by())
    _within_a_second(lambda: served.said(stable)["digest"] == str(served.two))
    assert {served.said(user)["digest"] for user in users} == {str(served.two)}
    registry.rollback(NAME, by=by("a test"))
    _within_a_second(lambda: served.said()["digest"] == str(served.one))
    assert served.said(model=f"{NAME}@2.0.0")["arm"] == "pinned"


def _within_a_second(true: Any) -> None:
    began = time.monotonic()
    until(true, 10)
    # The server looks every 0.25 s and warms for 0.5 s at most; the rest is for a busy machine.
    assert time.monotonic() - began < 3


def test_a_prefix_that_is_switched_off_is_refused_or_stood_in_for_visibly(served: Served) -> None:
    kill = Kill("it hurts", "ana", datetime.now(UTC))
    served.change(lambda table: table.with_kill(NAME, kill))
    until(lambda: _code(served) == "prefix.killed", 5)
    served.change(lambda table: _with_fallback(table, "base"))
    until(lambda: not _code(served), 5)
    raw = served.client().chat.completions.with_raw_response.create(
        model=NAME, messages=HI, max_tokens=1
    )
    told = raw.parse().foreword  # type: ignore[attr-defined]
    assert told["fallback"] == {"wanted": f"{NAME}@1.0.0", "reason": "prefix.killed"}
    assert (told["digest"], raw.headers["x-foreword-fallback"]) == (None, "prefix.killed")
    served.change(lambda table: _with_fallback(table.without_kill(NAME), "none"))
    until(lambda: served.said()["digest"] == str(served.one), 5)
    assert "fallback" not in served.said() or served.said()["fallback"] is None


def _with_fallback(table: AccessTable, fallback: str) -> AccessTable:
    tenant: Tenant = table.tenants["acme"]
    return table.with_tenant(replace(tenant, fallback=fallback))


def _code(served: Served) -> str | None:
    try:
        served.said()
    except openai.APIStatusError as error:
        return error.code
    return None


@pytest.mark.real
@pytest.mark.skipif(not LONG, reason="two trainings take minutes; FOREWORD_LONG=1 runs it")
def test_smollm2_answers_as_a_prefix_taught_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SmolLM2-135M with a prefix of a few steps, from the training to OpenAI's client."""
    from foreword.prefix.base_model import load_base
    from foreword.prefix.bases import demo_base
    from foreword.tuning.data import load_dataset
    from foreword.tuning.recipe import DataSettings, Recipe, TrainSettings
    from foreword.tuning.train import train
    from tests.serving.prefix_samples import SIGNER
    from tests.signing.made import signed
    from tests.test_real import TICKETS

    model = demo_base()
    base = load_base(model)
    dataset = load_dataset(TICKETS / "train.jsonl", DataSettings(limit=120), seed=0)
    recipe = Recipe(name="acme/tickets", train=TrainSettings(steps=20))
    made = train(recipe, base, dataset, tmp_path / "made").artifact
    rows = [{"input": f"How warm is it in {city}?", "target": CALL} for city in CITIES]
    calls = Recipe(
        name="acme/calls", data=DataSettings(template="chat"), train=TrainSettings(steps=20)
    )
    caller = train(
        calls,
        base,
        load_dataset(rows, calls.data, seed=0, tokenizer=base.tokenizer),
        tmp_path / "c",
    ).artifact
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path))
    monkeypatch.delenv("FOREWORD_REGISTRY", raising=False)
    with home_at(tmp_path, model) as ground:
        for each in (made, caller):
            ground.registry.publish(
                each.manifest_bytes,
                each.tensor_bytes,
                [signed(each, SIGNER)],
                policy=POLICY,
                by=by(),
            )
            name = f"{each.manifest.name}@{each.manifest.version}"
            ground.registry.release(name, policy=POLICY, by=by())
        with serving(model, "--set", "embedded.kv_bytes=2000000000") as process:
            client = process.client(ground.key)
            asked: Any = {"max_tokens": 40, "temperature": 0}
            ticket: Any = [{"role": "user", "content": "my tent is torn. Order A-1000."}]
            taught = client.chat.completions.create(model="acme/tickets", messages=ticket, **asked)
            bare = client.chat.completions.create(model="base", messages=ticket, **asked)
            weather: Any = [{"role": "user", "content": "How warm is it in Oslo?"}]
            called = client.chat.completions.create(
                model="acme/calls", messages=weather, tools=WEATHER, **asked
            )  # fmt: skip
            form: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
            held = client.chat.completions.create(
                model="base", messages=[{"role": "user", "content": "Is Bern warm?"}],
                response_format=form, **{**asked, "max_tokens": 60},
            )  # fmt: skip
    assert taught.foreword["digest"] == str(made.digest)  # type: ignore[attr-defined]
    assert (taught.choices[0].message.content or "").startswith('{"intent"')
    assert not (bare.choices[0].message.content or "").startswith("{")
    (call,) = called.choices[0].message.tool_calls or []
    assert (call.function.name, called.choices[0].finish_reason) == ("weather", "tool_calls")
    assert "city" in json.loads(call.function.arguments)
    assert json.loads(held.choices[0].message.content or "")["city"] in ("Bern", "Rom")
