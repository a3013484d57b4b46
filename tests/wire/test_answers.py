"""Answers as OpenAI's own client reads them: its models must accept every document."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from foreword.artifact import Digest
from foreword.errors import EngineFailed
from foreword.serving.contract import (
    AdapterSet,
    Chunk,
    Finish,
    GenerateRequest,
    TokenLogprob,
    Usage,
)
from foreword.serving.wire.answers import (
    Answered,
    Head,
    ModelEntry,
    Receipt,
    StandIn,
    add_up,
    chat_answer,
    completion_answer,
    model_entry,
    model_list,
)
from foreword.serving.wire.events import ChatEvents, CompletionEvents
from tests.serving.scripted import ScriptedBackend, spell, text_of, tokens_of

DIGEST, BASE = Digest.of(b"prefix"), Digest.of(b"base")
RECEIPT = Receipt(BASE, 7, "acme/support", "1.2.0", DIGEST, 16, "canary")
HEAD = Head("chatcmpl-1", 1_790_000_000, RECEIPT)
USAGE = Usage(5, 3, 4)
TOOLS = frozenset({"weather"})
CALL = [
    "Look: <tool",
    '_call>{"name": "weather", ',
    '"arguments": {"city": "Bern"}}',
    "</tool_call>",
]


def chunks(n: int = 1, *, logprobs: int | None = None, say: Any = None) -> list[Chunk]:
    """What a backend says, the answers mixed."""
    request = GenerateRequest("r", (1, 2), n=n, max_tokens=4, logprobs=logprobs)
    return [chunk for _, chunk in ScriptedBackend(say=say)._chunks(request)]


def answers(n: int = 1, *, logprobs: int | None = None, say: Any = None) -> list[Answered]:
    heard = chunks(n, logprobs=logprobs, say=say)
    return [
        Answered.of([c for c in heard if c.index == index], logprobs=logprobs is not None)
        for index in range(n)
    ]


def request(n: int = 1) -> GenerateRequest:
    return GenerateRequest("r", (1, 2), n=n, max_tokens=4)


# --- whole ---------------------------------------------------------------------------------------


def test_a_chat_completion_is_one_for_openais_client() -> None:
    said = ChatCompletion.model_validate(chat_answer(HEAD, answers(2), USAGE, spell), strict=True)
    assert (said.id, said.created, said.model) == (HEAD.id, HEAD.created, "acme/support@1.2.0")
    assert [choice.index for choice in said.choices] == [0, 1]
    assert said.choices[1].message.role == "assistant"
    assert said.choices[0].finish_reason == "length"
    assert said.choices[0].logprobs is None
    assert said.choices[0].message.tool_calls is None
    assert said.usage is not None
    assert (said.usage.prompt_tokens, said.usage.completion_tokens, said.usage.total_tokens) == (
        5,
        4,
        9,
    )
    assert said.usage.prompt_tokens_details is not None
    assert said.usage.prompt_tokens_details.cached_tokens == 3
    assert said.model_dump()["foreword"] == RECEIPT.body()


def test_log_probabilities_of_a_chat_name_each_token_with_its_bytes() -> None:
    half = TokenLogprob(1, -math.inf, ((2, -0.5),))
    answer = Answered("x", Finish.STOP, (half,))
    said = ChatCompletion.model_validate(
        chat_answer(HEAD, [answer], USAGE, lambda token: b"\xc3" if token == 1 else b"a"),
        strict=True,
    )
    assert said.choices[0].logprobs is not None
    assert said.choices[0].logprobs.content is not None
    (token,) = said.choices[0].logprobs.content
    assert (token.token, token.bytes, token.logprob) == ("\ufffd", [0xC3], -9999.0)
    (other,) = token.top_logprobs
    assert (other.token, other.bytes, other.logprob) == ("a", [97], -0.5)


def test_calls_of_an_answer_are_tool_calls_only_if_tools_were_offered() -> None:
    said = answers(say=lambda asked, index: CALL)
    with_tools = ChatCompletion.model_validate(
        chat_answer(HEAD, said, USAGE, spell, TOOLS), strict=True
    )
    (choice,) = with_tools.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Look:")
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Bern"}')
    assert call.id.startswith("call_")
    without = ChatCompletion.model_validate(chat_answer(HEAD, said, USAGE, spell), strict=True)
    assert (without.choices[0].finish_reason, without.choices[0].message.content) == (
        "stop",
        "".join(CALL),
    )


def test_a_completion_is_one_for_openais_client() -> None:
    said = Completion.model_validate(
        completion_answer(HEAD, answers(2, logprobs=2), USAGE, spell), strict=True
    )
    assert [choice.text for choice in said.choices] == [
        text_of(request(), 0),
        text_of(request(), 1),
    ]
    logprobs = said.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == [spell(token).decode() for token in tokens_of(request())]
    assert logprobs.text_offset is not None
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert said.choices[0].text[offset:].startswith(token)
    assert logprobs.token_logprobs == [-0.5] * 4
    assert logprobs.top_logprobs is not None
    assert all(len(each) == 2 for each in logprobs.top_logprobs)


def test_a_prompt_counts_once_however_many_answers_it_has() -> None:
    usages = [[Usage(5, 2, 3), Usage(5, 2, 4)], [], [Usage(7, 0, 1)]]
    assert add_up(usages) == Usage(12, 2, 8)


def test_an_answer_without_an_end_is_none() -> None:
    for some in ([], chunks()[:-1]):
        with pytest.raises(EngineFailed):
            Answered.of(some, logprobs=False)


def test_models_are_models_for_openais_client() -> None:
    entries = [ModelEntry("base", 0), ModelEntry("acme/support", 5, "acme", "base")]
    listed = model_list(entries)
    assert listed["object"] == "list"
    base, prefix = [Model.model_validate(each, strict=True) for each in listed["data"]]
    assert (base.id, base.owned_by) == ("base", "foreword")
    assert (prefix.id, prefix.created, prefix.owned_by) == ("acme/support", 5, "acme")
    assert model_entry(entries[1])["parent"] == "base"


# --- streamed ------------------------------------------------------------------------------------


def _ended(document: dict[str, Any]) -> dict[str, Any]:
    """OpenAI streams null for an answer that goes on; its client's model knows whole answers only."""
    choices = [
        each | {"finish_reason": each["finish_reason"] or "stop"} for each in document["choices"]
    ]
    return document | {"choices": choices}


def chat_events(events: ChatEvents, heard: list[Chunk]) -> Iterator[dict[str, Any]]:
    for chunk in heard:
        yield from events.take(chunk.index, chunk)
    yield from events.end(USAGE)


@pytest.mark.parametrize("usage", [True, False])
def test_a_streamed_chat_adds_up_to_the_whole_one(usage: bool) -> None:
    events = ChatEvents(HEAD, spell, 2, include_usage=usage)
    documents = list(chat_events(events, chunks(2, logprobs=1)))
    read = [ChatCompletionChunk.model_validate(each, strict=True) for each in documents]
    assert {(each.id, each.created, each.model) for each in read} == {
        (HEAD.id, HEAD.created, RECEIPT.model)
    }
    for index in range(2):
        mine = [each.choices[0] for each in read if each.choices and each.choices[0].index == index]
        assert mine[0].delta.role == "assistant"
        assert "".join(each.delta.content or "" for each in mine) == text_of(request(), index)
        assert [each.finish_reason for each in mine] == [None] * (len(mine) - 1) + ["length"]
        told = [e.token for each in mine if each.logprobs for e in each.logprobs.content or []]
        assert told == [spell(token).decode() for token in tokens_of(request(), index)]
    carriers = [place for place, each in enumerate(documents) if "foreword" in each]
    assert carriers == [0, len(documents) - 1]
    if usage:
        assert read[-1].choices == []
        assert read[-1].usage is not None
        assert read[-1].usage.total_tokens == 9
        assert all(each["usage"] is None for each in documents[:-1])
    else:
        assert all("usage" not in each for each in documents)


def test_a_streamed_call_comes_whole_and_its_text_does_not() -> None:
    events = ChatEvents(HEAD, spell, 1, tools=TOOLS)
    documents = list(chat_events(events, chunks(say=lambda asked, index: CALL)))
    read = [ChatCompletionChunk.model_validate(each, strict=True).choices[0] for each in documents]
    assert "".join(each.delta.content or "" for each in read) == "Look:"
    (told,) = [each.delta.tool_calls for each in read if each.delta.tool_calls]
    (call,) = told
    assert call.index == 0
    assert call.function is not None
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Bern"}')
    assert read[-1].finish_reason == "tool_calls"
    whole = chat_answer(HEAD, answers(say=lambda asked, index: CALL), USAGE, spell, TOOLS)
    assert whole["choices"][0]["message"]["tool_calls"][0]["id"] == call.id


def test_what_only_looks_like_a_call_is_streamed_as_text() -> None:
    events = ChatEvents(HEAD, spell, 1, tools=TOOLS)
    heard = chunks(say=lambda asked, index: ["a <tool", "_call>", "nothing"])
    documents = list(chat_events(events, heard))
    contents = [each["choices"][0]["delta"].get("content") or "" for each in documents]
    assert "".join(contents) == "a <tool_call>nothing"
    assert documents[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("usage", [True, False])
def test_a_streamed_completion_adds_up_to_the_whole_one(usage: bool) -> None:
    events = CompletionEvents(HEAD, spell, 2, include_usage=usage)
    documents = [
        document for chunk in chunks(2, logprobs=0) for document in events.take(chunk.index, chunk)
    ]
    documents += events.end(USAGE)
    read = [Completion.model_validate(_ended(each), strict=True) for each in documents]
    for index in range(2):
        mine = [c for each in read for c in each.choices if c.index == index]
        text = "".join(each.text for each in mine)
        assert text == text_of(request(), index)
        for each in mine:
            assert each.logprobs is not None
            assert each.logprobs.tokens is not None
            assert each.logprobs.text_offset is not None
            assert text[each.logprobs.text_offset[0] :].startswith(each.logprobs.tokens[0])
    assert [n for n, each in enumerate(documents) if "foreword" in each] == [0, len(documents) - 1]
    assert (read[-1].usage is not None) == usage


def test_a_chunk_that_adds_nothing_is_not_sent() -> None:
    nothing = Chunk("r", 0, "", (5,), AdapterSet())
    assert len(list(ChatEvents(HEAD, spell, 1).take(0, nothing))) == 1, "only who speaks"
    assert not list(CompletionEvents(HEAD, spell, 1).take(0, nothing))


# --- receipts ------------------------------------------------------------------------------------


def test_a_receipt_tells_what_was_attached_in_headers_and_body() -> None:
    assert RECEIPT.headers() == {
        "X-Foreword-Prefix": "acme/support",
        "X-Foreword-Version": "1.2.0",
        "X-Foreword-Digest": str(DIGEST),
        "X-Foreword-Arm": "canary",
        "X-Foreword-Base": str(BASE),
    }
    assert RECEIPT.body() == {
        "prefix": "acme/support", "version": "1.2.0", "digest": str(DIGEST), "length": 16,
        "arm": "canary", "base": str(BASE), "release_seq": 7, "fallback": None,
    }  # fmt: skip


def test_the_bare_model_and_a_stand_in_are_told_as_such() -> None:
    instead = Receipt(BASE, 7, fallback=StandIn("acme/support@1.2.0", "prefix.fetch_failed"))
    assert instead.model == "base"
    assert instead.headers() == {
        "X-Foreword-Prefix": "base",
        "X-Foreword-Base": str(BASE),
        "X-Foreword-Fallback": "prefix.fetch_failed",
    }
    assert instead.body()["digest"] is None
    assert instead.body()["fallback"] == {
        "wanted": "acme/support@1.2.0",
        "reason": "prefix.fetch_failed",
    }
