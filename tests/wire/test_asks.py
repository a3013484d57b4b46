"""What clients may ask for, and the field that each refusal names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import CompletionCreateParams
from openai.types.chat import CompletionCreateParams as ChatParams
from typing_extensions import get_type_hints

from foreword.errors import BadRequest
from foreword.serving.contract import Constraint, Sampling
from foreword.serving.wire.asks import ChatAsk, CompletionAsk, parse_chat, parse_completion
from foreword.serving.wire.chat_body import ChatBody
from foreword.serving.wire.completion_body import CompletionBody

USER = {"role": "user", "content": "hello"}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "?", "parameters": {"type": "object"}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def chat(**fields: Any) -> ChatAsk:
    return parse_chat(json.dumps({"model": "base", "messages": [USER], **fields}).encode())


def completion(**fields: Any) -> CompletionAsk:
    return parse_completion(json.dumps({"model": "base", "prompt": "hello", **fields}).encode())


def refusal(parse: Any, **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(**fields)
    return caught.value


# --- what is understood --------------------------------------------------------------------------


def test_a_body_with_nothing_but_its_message_gets_openais_defaults() -> None:
    ask = chat()
    assert ask.messages == (USER,)
    assert ask.sampling == Sampling(temperature=1.0)
    assert (ask.model, ask.n, ask.max_tokens, ask.logprobs, ask.stop) == ("base", 1, None, None, ())
    assert (ask.stream, ask.include_usage, ask.constraint, ask.user) == (False, False, None, None)
    assert (ask.extension.prompt, dict(ask.extension.inputs)) == (None, {})
    assert ask.tools == ()


def test_every_field_of_sampling_arrives_under_its_own_name() -> None:
    ask = chat(
        temperature=0, top_p=0.9, presence_penalty=-2, frequency_penalty=2, seed=7, top_k=5,
        min_p=0.1, repetition_penalty=1.5, stop_token_ids=[3, 4], ignore_eos=True, n=8, max_tokens=9,
    )  # fmt: skip
    assert ask.sampling == Sampling(0.0, 0.9, 5, 0.1, 1.5, -2.0, 2.0, 7)
    assert (ask.stop_ids, ask.ignore_eos, ask.n, ask.max_tokens) == ((3, 4), True, 8, 9)


@pytest.mark.parametrize(("seed", "used"), [(0, 0), (-1, 2**63 - 1), (2**63, 0), (10**30, None)])
def test_any_integer_is_a_seed(seed: int, used: int | None) -> None:
    drawn = chat(seed=seed).sampling.seed
    assert drawn is not None
    assert 0 <= drawn < 2**63
    assert used is None or drawn == used


def test_values_that_mean_all_or_only_the_likeliest_are_put_as_the_engine_has_them() -> None:
    assert chat(top_k=-1).sampling.top_k == 0
    assert 0 < chat(top_p=0).sampling.top_p < 1e-6


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
)
def test_log_probabilities_of_a_chat(fields: dict[str, Any], wanted: int | None) -> None:
    assert chat(**fields).logprobs == wanted


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"max_tokens": 3}, 3),
        ({"max_completion_tokens": 4}, 4),
        ({"max_tokens": 5, "max_completion_tokens": 5}, 5),
        ({"max_tokens": None}, None),
    ],
)
def test_the_two_names_for_the_number_of_new_tokens(
    fields: dict[str, Any], most: int | None
) -> None:
    assert chat(**fields).max_tokens == most


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, ("json_schema", {"type": "object"})),
        (
            {"response_format": {"type": "json_schema", "json_schema": {
                "name": "a", "schema": SCHEMA, "strict": True, "description": "?"}}},
            ("json_schema", SCHEMA),
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            ("json_schema", {"type": "object"}),
        ),
        ({"guided_json": SCHEMA}, ("json_schema", SCHEMA)),
        ({"structured_outputs": {"json": SCHEMA}}, ("json_schema", SCHEMA)),
        ({"guided_regex": "a+"}, ("regex", "a+")),
        ({"structured_outputs": {"regex": "a+"}}, ("regex", "a+")),
    ],
)  # fmt: skip
def test_formats_become_a_constraint(fields: dict[str, Any], constraint: Any) -> None:
    found = chat(**fields).constraint
    if constraint is None:
        assert found is None
    else:
        assert found is not None
        said = found.text if found.kind == "regex" else json.loads(found.text)
        assert (found.kind, said) == constraint


def test_messages_become_what_chat_templates_read() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    ask = chat(
        messages=[
            {"role": "developer", "content": "rules", "name": "us"},
            {"role": "user", "content": parts},
            # As the official client sends an answer back.
            {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None,
             "annotations": [], "audio": None, "function_call": None},
            {"role": "tool", "content": "rain", "tool_call_id": "c1"},
        ],
        tools=[TOOL],
    )  # fmt: skip
    assert ask.messages == (
        {"role": "system", "content": "rules", "name": "us"},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "rain", "tool_call_id": "c1"},
    )
    assert ask.tools == (TOOL,)
    assert ask.tool_names == {"weather"}


def test_the_model_is_not_told_of_tools_it_must_not_call() -> None:
    assert chat(tools=[TOOL], tool_choice="auto").tools == (TOOL,)
    assert chat(tools=[TOOL], tool_choice="none").tools == ()


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ("a",)),
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        ("\ud83d\ude00", ("\U0001f600",)),
    ],
)
def test_prompts_are_texts_or_token_ids(prompt: Any, prompts: Any) -> None:
    body = json.dumps({"model": "base", "prompt": prompt}).replace("\\U", "\\u").encode()
    assert parse_completion(body).prompts == prompts


def test_stops_usage_extension_and_user() -> None:
    ask = completion(
        stop="a", stream=True, stream_options={"include_usage": True}, user="u1", logprobs=5,
        foreword={"prompt": "trained", "inputs": {"lang": "de"}},
    )  # fmt: skip
    assert (ask.stop, ask.stream, ask.include_usage, ask.user) == (("a",), True, True, "u1")
    assert ask.logprobs == 5
    assert ask.extension.prompt == "trained"
    assert ask.extension.inputs == {"lang": "de"}
    assert completion(stop=["a", "b"]).stop == ("a", "b")
    assert completion(stop=[]).stop == ()


@pytest.mark.parametrize(
    "field",
    ["metadata", "parallel_tool_calls", "prediction", "prompt_cache_key", "safety_identifier",
     "service_tier", "store"],
)  # fmt: skip
def test_fields_that_change_no_answer_are_accepted(field: str) -> None:
    assert chat(**{field: {"a": "b"}}) == chat()


@pytest.mark.parametrize(
    ("params", "model"), [(ChatParams, ChatBody), (CompletionCreateParams, CompletionBody)]
)
def test_every_field_that_openai_documents_is_known_and_may_be_null(
    params: Any, model: Any
) -> None:
    documented = {name for kind in params.__args__ for name in get_type_hints(kind)}
    assert documented <= set(model.model_fields)
    parse = chat if model is ChatBody else completion
    for name in documented - {"messages", "model", "prompt"}:
        parse(**{name: None})


# --- what is refused, and which field is named ---------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"seed": 1.5}, "seed"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"n": 16_384}, "n"),
        ({"n": 1.0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": "a" * 65}, "stop"),
        ({"stop": ["a" * 65]}, "stop[0]"),
        ({"stop": ""}, "stop"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stop_token_ids": [1] * 65}, "stop_token_ids"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"user": "u" * 257}, "user"),
        ({"model": ""}, "model"),
        ({"model": "m" * 257}, "model"),
        ({"model": None}, "model"),
        ({"guided_regex": "a", "guided_json": {}}, "guided_json"),
        ({"guided_regex": "a" * 70_000}, "guided_regex"),
        ({"guided_json": {"a": "b" * 70_000}}, "guided_json"),
        ({"foreword": {"prompt": "other"}}, "foreword.prompt"),
        ({"foreword": {"inputs": {"a": 1}}}, "foreword.inputs.a"),
        ({"foreword": {"inputs": {str(i): "" for i in range(65)}}}, "foreword.inputs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
    ],
)
def test_what_both_kinds_refuse(fields: dict[str, Any], param: str) -> None:
    for parse in (chat, completion):
        error = refusal(parse, **fields)
        assert error.param == param
        assert error.code in ("request.field", "request.unsupported")
        assert str(error).startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [USER] * 2049}, "messages"),
        ({"messages": ["hello"]}, "messages[0].role"),
        ({"messages": [{"role": "function", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"content": ""}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "user"}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}]},
            "messages[0].tool_calls[0].type",
        ),
        ({"logprobs": 5}, "logprobs"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
        ),
        (
            {"response_format": {"type": "json_object"}, "guided_regex": "a"},
            "guided_regex",
        ),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [TOOL] * 129}, "tools"),
        ({"tool_choice": "always"}, "tool_choice"),
    ],
)
def test_what_a_chat_refuses(fields: dict[str, Any], param: str) -> None:
    error = refusal(chat, **fields)
    assert (error.param, error.code) == (param, "request.field")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, "tool_choice"),
        ({"tools": [TOOL], "response_format": {"type": "json_object"}}, "tools"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
            "tools[0].function.strict",
        ),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"web_search_options": {"a": 1}}, "web_search_options"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]}]},
            "messages[0].content[0].type",
        ),
    ],
)  # fmt: skip
def test_what_a_chat_understands_and_cannot_honour(fields: dict[str, Any], param: str) -> None:
    error = refusal(chat, **fields)
    assert (error.param, error.code) == (param, "request.unsupported")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"echo": True}, "echo", "unsupported"),
        ({"suffix": "x"}, "suffix", "unsupported"),
        ({"n": 2, "best_of": 3}, "best_of", "unsupported"),
        ({"best_of": 2}, "best_of", "unsupported"),
        ({"logprobs": 21}, "logprobs", "field"),
        ({"logprobs": True}, "logprobs", "field"),
        ({"prompt": []}, "prompt", "field"),
        ({"prompt": None}, "prompt", "field"),
        ({"prompt": ["a"] * 17}, "prompt", "field"),
        ({"prompt": [[1]] * 17}, "prompt", "field"),
        ({"prompt": ["a", 1]}, "prompt[1]", "field"),
        ({"prompt": [1, "a"]}, "prompt[1]", "field"),
        ({"prompt": [True]}, "prompt[0]", "field"),
        ({"prompt": [-1]}, "prompt[0]", "field"),
        ({"prompt": [2**31]}, "prompt[0]", "field"),
        ({"prompt": [[]]}, "prompt[0]", "field"),
        ({"prompt": {"a": 1}}, "prompt", "field"),
        ({"prompt_embeds": "AAAA"}, "prompt_embeds", "unknown_field"),
    ],
)
def test_what_a_completion_refuses(fields: dict[str, Any], param: str, code: str) -> None:
    error = refusal(completion, **fields)
    assert (error.param, error.code) == (param, f"request.{code}")


def test_best_of_and_n_may_say_the_same() -> None:
    assert completion(n=3, best_of=3).n == 3


@pytest.mark.parametrize(
    ("fields", "near"),
    [
        ({"temprature": 1}, "temperature"),
        ({"max_token": 1}, "max_tokens"),
        ({"foreword": {"promt": "raw"}}, "prompt"),
        ({"xyzzy": 1}, None),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_name(
    fields: dict[str, Any], near: str | None
) -> None:
    error = refusal(chat, **fields)
    assert error.code == "request.unknown_field"
    assert (f"did you mean {near!r}" in str(error)) == (near is not None)


def test_a_refusal_quotes_no_text_that_may_be_a_prompt_and_steers_no_terminal() -> None:
    hostile = {"model": "base", "messages": [{"role": "\x1b[2J", "content": "canary"}]}
    for body in (
        hostile,
        {"model": "base", "messages": [{"role": "user", "content": {"canary": "canary"}}]},
        {"model": "base", "messages": [USER], "stop": ["canary" * 20]},
        {"model": "base", "messages": [USER], "\x1b[2J" * 50: 1},
    ):
        with pytest.raises(BadRequest) as caught:
            parse_chat(json.dumps(body).encode())
        assert "canary" not in str(caught.value)
        assert "\x1b" not in str(caught.value)
        assert len(str(caught.value)) < 500
        assert caught.value.__cause__ is None, "its text would quote the body"


def test_a_constraint_is_the_same_however_often_it_is_asked_for() -> None:
    assert chat(guided_json=SCHEMA).constraint == Constraint(
        "json_schema", json.dumps(SCHEMA, separators=(",", ":"))
    )
