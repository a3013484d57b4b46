"""Answers in OpenAI's shapes, as values for JSON: whole ones, pieces of streamed ones, model lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from foreword.errors import EngineFailed
from foreword.serving.contract import Chunk, Finish, TokenLogprob, Usage
from foreword.serving.wire.logprobs import Spell, chat_logprobs, completion_logprobs
from foreword.serving.wire.receipt import Receipt, StandIn
from foreword.serving.wire.tool_calls import Call, read_calls

__all__ = [
    "Answered",
    "Head",
    "ModelEntry",
    "Receipt",
    "StandIn",
    "add_up",
    "chat_answer",
    "chat_chunk",
    "completion_answer",
    "completion_chunk",
    "model_entry",
    "model_list",
]  # fmt: skip

OWNER = "foreword"


@dataclass(frozen=True)
class Head:
    """What all documents of one response have in common."""

    id: str
    created: int
    """Unix seconds."""
    receipt: Receipt

    def document(self, kind: str, choices: list[Any], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.receipt.model,
            "choices": choices,
            **more,
        }


@dataclass(frozen=True)
class Answered:
    """One whole answer."""

    text: str
    finish: Finish
    logprobs: tuple[TokenLogprob, ...] | None = None
    """None: nobody asked for them."""

    @classmethod
    def of(cls, chunks: Sequence[Chunk], *, logprobs: bool) -> Answered:
        """Put together from all its chunks.

        Raises:
            EngineFailed: the last of them is not its end.
        """
        finish = chunks[-1].finish if chunks else None
        if finish is None:
            raise EngineFailed("an answer stopped without an end; ask again")
        said = tuple(each for chunk in chunks for each in chunk.logprobs)
        return cls("".join(chunk.text for chunk in chunks), finish, said if logprobs else None)


def add_up(usages: Iterable[Sequence[Usage]]) -> Usage:
    """The usage of a response, from those of all answers to each of its prompts.

    A prompt counts once, however many answers it has.
    """
    prompts = [answers for answers in usages if answers]
    return Usage(
        sum(answers[0].prompt_tokens for answers in prompts),
        sum(answers[0].cached_tokens for answers in prompts),
        sum(answer.completion_tokens for answers in prompts for answer in answers),
    )


def chat_answer(
    head: Head,
    answers: Sequence[Answered],
    usage: Usage,
    spell: Spell,
    tools: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """A `chat.completion`. `tools`: names of the tools that the answers may call."""
    choices = [
        _chat_choice(head, index, answer, spell, tools) for index, answer in enumerate(answers)
    ]
    return head.document(
        "chat.completion", choices, usage=usage_body(usage), foreword=head.receipt.body()
    )


def _chat_choice(
    head: Head, index: int, answer: Answered, spell: Spell, tools: frozenset[str]
) -> dict[str, Any]:
    spoken = read_calls(answer.text, tools)
    message: dict[str, Any] = {"role": "assistant", "content": spoken.text, "refusal": None}
    if spoken.calls:
        message["content"] = spoken.text or None
        message["tool_calls"] = call_bodies(head, index, spoken.calls)
    said = answer.logprobs
    return {
        "index": index,
        "message": message,
        "finish_reason": "tool_calls" if spoken.calls else str(answer.finish),
        "logprobs": None if said is None else chat_logprobs(said, spell),
    }


def call_bodies(head: Head, index: int, calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Calls of the answer at `index`; their ids follow from the response's."""
    return [
        {
            "id": f"call_{head.id}_{index}_{place}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for place, call in enumerate(calls)
    ]


def chat_chunk(
    head: Head,
    index: int,
    delta: dict[str, Any],
    *,
    finish: str | None = None,
    logprobs: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A `chat.completion.chunk` of one answer. `more`: fields beside `choices`."""
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return head.document("chat.completion.chunk", [choice], **more)


def completion_answer(
    head: Head, answers: Sequence[Answered], usage: Usage, spell: Spell
) -> dict[str, Any]:
    """A `text_completion`; the answers of the first prompt come first."""
    choices = [
        _text_choice(
            index,
            answer.text,
            str(answer.finish),
            None if answer.logprobs is None else completion_logprobs(answer.logprobs, spell),
        )
        for index, answer in enumerate(answers)
    ]
    return head.document(
        "text_completion", choices, usage=usage_body(usage), foreword=head.receipt.body()
    )


def completion_chunk(
    head: Head,
    index: int,
    text: str,
    *,
    finish: str | None = None,
    logprobs: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A piece of a streamed `text_completion`. `more`: fields beside `choices`."""
    return head.document("text_completion", [_text_choice(index, text, finish, logprobs)], **more)


def _text_choice(
    index: int, text: str, finish: str | None, logprobs: dict[str, Any] | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "finish_reason": finish, "logprobs": logprobs}


def usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


@dataclass(frozen=True)
class ModelEntry:
    """What may be written as `model`."""

    id: str
    created: int
    """Unix seconds."""
    owner: str = OWNER
    """The tenant of a prefix."""
    parent: str | None = None
    """`base` for a prefix."""


def model_entry(entry: ModelEntry) -> dict[str, Any]:
    """A `model`. `root` and `parent` are vLLM's words."""
    return {
        "id": entry.id,
        "object": "model",
        "created": entry.created,
        "owned_by": entry.owner,
        "root": entry.parent or entry.id,
        "parent": entry.parent,
    }


def model_list(entries: Iterable[ModelEntry]) -> dict[str, Any]:
    """All models that a key may use."""
    return {"object": "list", "data": [model_entry(entry) for entry in entries]}
