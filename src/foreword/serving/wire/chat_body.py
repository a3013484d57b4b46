"""The body of POST /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, field_validator, model_validator

from foreword.serving.contract import Constraint
from foreword.serving.wire.common import Common, NewTokens, schema
from foreword.serving.wire.limits import MAX_LOGPROBS, MAX_MESSAGES, MAX_TOOLS
from foreword.serving.wire.messages import Message, Tool
from foreword.serving.wire.shapes import Ignored, Shape, by_kind, unless_empty, unsupported, wrong

_ANY_OBJECT = {"type": "object"}


class PlainFormat(Shape):
    type: Literal["text", "json_object"]


class NamedSchema(Shape):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None
    """Answers are always held to the schema."""


class SchemaFormat(Shape):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[
    Annotated[PlainFormat, Tag("(plain)")] | Annotated[SchemaFormat, Tag("(schema)")],
    by_kind("type", {"text": "(plain)", "json_object": "(plain)", "json_schema": "(schema)"}),
]


class ChatBody(Common):
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    response_format: ResponseFormat | None = None
    max_completion_tokens: NewTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    modalities: Annotated[list[str] | None, Field(json_schema_extra={"enum": [None, ["text"]]})] = (
        None
    )

    metadata: Ignored = None
    parallel_tool_calls: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None

    audio: Annotated[Any, unless_empty("it answers with texts only")] = None
    functions: Annotated[Any, unless_empty("use tools")] = None
    function_call: Annotated[Any, unless_empty("use tool_choice")] = None
    moderation: Annotated[Any, unless_empty("moderate before or behind it")] = None
    reasoning_effort: Annotated[Any, unless_empty("say it in a message")] = None
    verbosity: Annotated[Any, unless_empty("say it in a message")] = None
    web_search_options: Annotated[Any, unless_empty("offer a tool instead")] = None

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _a_choice(cls, value: Any) -> Any:
        if value == "required" or isinstance(value, dict):
            unsupported("a call cannot be forced; use 'auto' or 'none'")
        return value

    @field_validator("modalities")
    @classmethod
    def _texts(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and value != ["text"]:
            unsupported("this server answers with texts only; leave it out")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> ChatBody:
        if self.top_logprobs is not None and not self.logprobs:
            wrong("it is given without logprobs; set logprobs to true", "top_logprobs")
        if len({self.max_tokens, self.max_completion_tokens} - {None}) > 1:
            wrong("it differs from max_completion_tokens; leave it out", "max_tokens")
        if self.offered and self.constraint is not None:
            unsupported("an answer that is held to a format calls no tools; drop either", "tools")
        return self

    @property
    def offered(self) -> list[Tool]:
        """The tools the model is told of."""
        return [] if self.tool_choice == "none" else self.tools or []

    @property
    def formats(self) -> dict[str, Constraint]:
        asked, wanted = self.response_format, None
        if isinstance(asked, SchemaFormat):
            wanted = asked.json_schema.schema_
        if asked is None or asked.type == "text":
            return super().formats
        wanted = _ANY_OBJECT if wanted is None else wanted
        return super().formats | {"response_format": schema(wanted, "response_format")}
