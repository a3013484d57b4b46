"""Streamed answers: from an engine's chunks to the documents that go out one by one.

    role ─▶ text … ─▶ (tool calls) ─▶ finish      for each answer, mixed with those of the others
    usage                                          once, if the client wants it

The first document and the last one carry the receipt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from foreword.serving.contract import Chunk, Usage
from foreword.serving.wire.answers import (
    Head,
    call_bodies,
    chat_chunk,
    completion_chunk,
    usage_body,
)  # fmt: skip
from foreword.serving.wire.logprobs import Spell, chat_logprobs, completion_logprobs
from foreword.serving.wire.tool_calls import CallWatcher, Spoken


class _Events:
    """What both kinds share: which document is the first and which one the last."""

    def __init__(self, head: Head, spell: Spell, answers: int, *, include_usage: bool) -> None:
        self._head, self._spell = head, spell
        self._open = answers
        self._include_usage = include_usage
        self._begun = False

    def _more(self, *, ends: bool = False) -> dict[str, Any]:
        """The fields of the next document beside its choices; `ends`: an answer ends with it."""
        self._open -= ends
        first, self._begun = not self._begun, True
        last = self._open == 0 and ends and not self._include_usage
        more: dict[str, Any] = {"usage": None} if self._include_usage else {}
        return more | ({"foreword": self._head.receipt.body()} if first or last else {})

    def end(self, usage: Usage) -> Iterator[dict[str, Any]]:
        """What comes after the end of the last answer."""
        if self._include_usage:
            yield self._head.document(
                self._kind, [], usage=usage_body(usage), foreword=self._head.receipt.body()
            )

    _kind = ""


class ChatEvents(_Events):
    """`chat.completion.chunk`s. `tools`: names of the tools that the answers may call."""

    _kind = "chat.completion.chunk"

    def __init__(
        self,
        head: Head,
        spell: Spell,
        answers: int,
        *,
        include_usage: bool = False,
        tools: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(head, spell, answers, include_usage=include_usage)
        self._watchers = {index: CallWatcher(tools) for index in range(answers)} if tools else {}
        self._greeted: set[int] = set()

    def take(self, index: int, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """What the next chunk of the answer at `index` makes certain."""
        if index not in self._greeted:
            self._greeted.add(index)
            yield self._document(index, {"role": "assistant", "content": ""})
        watcher = self._watchers.get(index)
        text = watcher.push(chunk.text) if watcher else chunk.text
        if text or chunk.logprobs:
            said = chat_logprobs(chunk.logprobs, self._spell) if chunk.logprobs else None
            yield self._document(index, {"content": text} if text else {}, said)
        if chunk.finish is not None:
            yield from self._finish(index, watcher.finish() if watcher else Spoken(""), chunk)

    def _finish(self, index: int, spoken: Spoken, chunk: Chunk) -> Iterator[dict[str, Any]]:
        if spoken.text:
            yield self._document(index, {"content": spoken.text})
        if spoken.calls:
            calls = call_bodies(self._head, index, spoken.calls)
            yield self._document(
                index,
                {"tool_calls": [{"index": place, **call} for place, call in enumerate(calls)]},
            )
        reason = "tool_calls" if spoken.calls else str(chunk.finish)
        yield chat_chunk(self._head, index, {}, finish=reason, **self._more(ends=True))

    def _document(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return chat_chunk(self._head, index, delta, logprobs=logprobs, **self._more())


class CompletionEvents(_Events):
    """Pieces of a `text_completion`."""

    _kind = "text_completion"

    def __init__(
        self, head: Head, spell: Spell, answers: int, *, include_usage: bool = False
    ) -> None:
        super().__init__(head, spell, answers, include_usage=include_usage)
        self._offsets = dict.fromkeys(range(answers), 0)
        """Characters of tokens whose log-probabilities were told."""

    def take(self, index: int, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """What the next chunk of the answer at `index` makes certain."""
        if chunk.text or chunk.logprobs or chunk.finish is not None:
            yield completion_chunk(
                self._head,
                index,
                chunk.text,
                finish=None if chunk.finish is None else str(chunk.finish),
                logprobs=self._logprobs(index, chunk),
                **self._more(ends=chunk.finish is not None),
            )

    def _logprobs(self, index: int, chunk: Chunk) -> dict[str, Any] | None:
        if not chunk.logprobs:
            return None
        offset = self._offsets[index]
        said = completion_logprobs(chunk.logprobs, self._spell, offset)
        self._offsets[index] = offset + sum(map(len, said["tokens"]))
        return said
