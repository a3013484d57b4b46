"""Messages and tools of a conversation, from OpenAI's shape to what chat templates read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from foreword.serving.wire.shapes import Shape, by_kind, unless_empty, unsupported, wrong

Name = Annotated[str, Field(min_length=1, max_length=64)]
Id = Annotated[str, Field(min_length=1, max_length=128)]


class TextPart(Shape):
    """One part of a content. Other kinds than text are not understood by these models."""

    type: Literal["text"]
    text: str

    @field_validator("type", mode="before")
    @classmethod
    def _text_only(cls, value: Any) -> Any:
        if value in ("image_url", "input_audio", "file", "refusal"):
            unsupported("this server reads texts only; send parts of type 'text'")
        return value


def _form(value: Any) -> str:
    return "(parts)" if isinstance(value, list) else "(text)"


Content = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[
        list[TextPart], Field(min_length=1, max_length=256, fail_fast=True), Tag("(parts)")
    ],
    Discriminator(_form),
]


class SystemMessage(Shape):
    role: Literal["system", "developer"]
    content: Content
    name: Name | None = None


class UserMessage(Shape):
    role: Literal["user"]
    content: Content
    name: Name | None = None


class CalledFunction(Shape):
    name: Name
    arguments: str
    """JSON, as the model wrote it."""


class ToolCall(Shape):
    id: Id
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None
    """In streamed answers, which some clients send back as they are."""


class AssistantMessage(Shape):
    """As sent by a client, or as it got it from us."""

    role: Literal["assistant"]
    content: Content | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=64)] | None = None
    refusal: Annotated[Any, unless_empty("leave it out")] = None
    annotations: Annotated[Any, unless_empty("leave it out")] = None
    audio: Annotated[Any, unless_empty("leave it out")] = None
    function_call: Annotated[Any, unless_empty("use tool_calls")] = None

    @model_validator(mode="after")
    def _says_something(self) -> AssistantMessage:
        if self.content is None and not self.tool_calls:
            wrong("an assistant's message has content or tool_calls; give one", "content")
        return self


class ToolMessage(Shape):
    role: Literal["tool"]
    content: Content
    tool_call_id: Id
    name: Name | None = None


_READ = {"role", "name", "tool_calls", "tool_call_id"}
"""Fields beside `content` that templates know."""
_ROLES = {
    "system": "(system)",
    "developer": "(system)",
    "user": "(user)",
    "assistant": "(assistant)",
    "tool": "(tool)",
}


Message = Annotated[
    Annotated[SystemMessage, Tag("(system)")]
    | Annotated[UserMessage, Tag("(user)")]
    | Annotated[AssistantMessage, Tag("(assistant)")]
    | Annotated[ToolMessage, Tag("(tool)")],
    by_kind("role", _ROLES),
]


class Function(Shape):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema."""
    strict: Annotated[
        bool | None,
        unless_empty("arguments are not held to the schema; check them yourself and leave it out"),
    ] = None


class Tool(Shape):
    type: Literal["function"]
    function: Function


def spoken(message: SystemMessage | UserMessage | AssistantMessage | ToolMessage) -> dict[str, Any]:
    """What a chat template reads: the parts of a text as one, and `developer` is `system`."""
    said = message.model_dump(exclude_none=True, include=_READ)
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    if message.role == "developer":
        said["role"] = "system"
    return {**said, "content": content}


def offered(tool: Tool) -> Mapping[str, Any]:
    """A tool as a chat template reads it."""
    return tool.model_dump(exclude_none=True)
