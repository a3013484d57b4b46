"""The input of a request in the form that a prefix was trained with, or that a chat template reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from foreword.artifact import PromptFormat
from foreword.errors import UsageError
from foreword.prefix.prompts import places

if TYPE_CHECKING:
    from foreword.serving.gateway.prompting import Message, Way


def is_chat(trained: PromptFormat | None) -> bool:
    return trained is not None and trained.kind == "chat"


def columns(trained: PromptFormat, text: str, inputs: Mapping[str, str]) -> dict[str, str]:
    """Every place of a template and what fills it: `inputs` by name, the text in `input`."""
    wanted = places(trained)
    unknown = [name for name in inputs if name not in wanted]
    if unknown or ("input" in inputs and text):
        raise UsageError(
            f"foreword.inputs: the prefix was trained with {trained.template[:80]!r}, whose places are "
            f"{', '.join(wanted)}; got {', '.join(map(repr, inputs))[:200]}"
            f"{' besides a text, which is `input`' if not unknown else ''}",
            code="prompt.inputs",
        )
    if "input" in wanted:
        return {"input": text, **inputs}
    if text:
        raise UsageError(
            f"the prefix was trained with {trained.template[:80]!r}, which has no place for a text; fill "
            f"{', '.join(wanted) or 'nothing'} with foreword.inputs and leave the text empty",
            code="prompt.inputs",
        )
    return dict(inputs)


def only_text(messages: Sequence[Message], tools: Sequence[Any], reads: str) -> str:
    """The text of a conversation that is one message of the user and nothing else."""
    if len(messages) == 1 and messages[0].get("role") == "user" and not tools:
        return str(messages[0].get("content") or "")
    roles = ", ".join(str(message.get("role")) for message in messages[:8])
    raise UsageError(
        f"this prefix reads one user message in {reads}, got {roles}{' and tools' if tools else ''}; "
        'send one message, or set foreword.prompt to "chat" to use the model\'s chat template, with '
        "which it was not trained",
        code="prompt.messages",
    )


def no_inputs(way: Way, reads: str) -> None:
    if way.inputs:
        raise UsageError(
            f"foreword.inputs fill the places of a trained template, but this request is {reads}; "
            "leave them out",
            code="prompt.inputs",
        )


def spoken(message: Message) -> dict[str, Any]:
    """A message as chat templates read it: always a text, arguments of calls as values."""
    said = dict(message)
    said["content"] = message.get("content") or ""
    if message.get("tool_calls"):
        said["tool_calls"] = [called(call) for call in message["tool_calls"]]
    return said


def called(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    # Without success the template gets the text that the model once wrote.
    with suppress(ValueError, TypeError, RecursionError):
        function["arguments"] = json.loads(function.get("arguments") or "{}")
    return {**call, "function": function}
