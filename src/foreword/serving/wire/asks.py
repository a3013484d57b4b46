"""What a client asks for, read and checked: from here on nobody looks at its JSON again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foreword.serving.contract import Constraint, Sampling
from foreword.serving.wire.bodies import read_object
from foreword.serving.wire.chat_body import ChatBody
from foreword.serving.wire.common import Common, Extension
from foreword.serving.wire.completion_body import CompletionBody
from foreword.serving.wire.messages import offered, spoken
from foreword.serving.wire.shapes import read_shape

__all__ = ["ChatAsk", "CompletionAsk", "Extension", "parse_chat", "parse_completion"]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What both kinds of request ask for."""

    model: str
    sampling: Sampling
    max_tokens: int | None
    """Of one answer; None: as many as fit the context."""
    stop: tuple[str, ...]
    stop_ids: tuple[int, ...]
    ignore_eos: bool
    n: int
    logprobs: int | None
    """Alternatives beside each token; None: no log-probabilities."""
    constraint: Constraint | None
    stream: bool
    include_usage: bool
    user: str | None
    extension: Extension


@dataclass(frozen=True, kw_only=True)
class ChatAsk(Ask):
    messages: tuple[Mapping[str, Any], ...]
    """As chat templates read them; `content` is a text or, beside `tool_calls`, None."""
    tools: tuple[Mapping[str, Any], ...]

    @property
    def tool_names(self) -> frozenset[str]:
        return frozenset(tool["function"]["name"] for tool in self.tools)


@dataclass(frozen=True, kw_only=True)
class CompletionAsk(Ask):
    prompts: tuple[str | tuple[int, ...], ...]


def parse_chat(body: bytes) -> ChatAsk:
    """The request in the body of POST /v1/chat/completions.

    Raises:
        BadRequest: as `bodies.read_object` and `shapes.read_shape` say.
    """
    read = read_shape(ChatBody, read_object(body))
    return ChatAsk(
        **_common(read),
        max_tokens=read.max_completion_tokens or read.max_tokens,
        logprobs=(read.top_logprobs or 0) if read.logprobs else None,
        messages=tuple(map(spoken, read.messages)),
        tools=tuple(map(offered, read.offered)),
    )


def parse_completion(body: bytes) -> CompletionAsk:
    """The request in the body of POST /v1/completions.

    Raises:
        BadRequest: as `parse_chat`.
    """
    read = read_shape(CompletionBody, read_object(body))
    return CompletionAsk(
        **_common(read),
        max_tokens=read.max_tokens,
        logprobs=read.logprobs,
        prompts=read.prompts,
    )


def _common(read: Common) -> dict[str, Any]:
    return {
        "model": read.model,
        "sampling": read.sampling,
        "stop": read.stops,
        "stop_ids": tuple(read.stop_token_ids or ()),
        "ignore_eos": bool(read.ignore_eos),
        "n": read.n or 1,
        "constraint": read.constraint,
        "stream": bool(read.stream),
        "include_usage": read.include_usage,
        "user": read.user,
        "extension": read.foreword or Extension(),
    }
