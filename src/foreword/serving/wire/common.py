"""The fields that chat completions and completions have in common, and what they ask of an engine."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from foreword.serving.contract import Constraint, Sampling
from foreword.serving.wire.limits import (
    MAX_ANSWERS,
    MAX_INPUTS,
    MAX_MODEL,
    MAX_SCHEMA,
    MAX_STOP,
    MAX_STOP_IDS,
    MAX_STOPS,
    MAX_TEMPERATURE,
    MAX_TOKEN_ID,
    MAX_TOKENS,
    MAX_USER,
)  # fmt: skip
from foreword.serving.wire.shapes import Ignored, Shape, unless_empty, wrong

NewTokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
_StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Pattern = Annotated[str, Field(min_length=1, max_length=MAX_SCHEMA)]
_TOP_P_ZERO = 1e-9
"""OpenAI's `top_p` may be 0: only the likeliest token. The engine's may not, this does the same."""


def _stop_form(value: Any) -> str:
    return "(list)" if isinstance(value, list) else "(text)"


class StreamOptions(Shape):
    include_usage: bool | None = None
    include_obfuscation: Ignored = None


class Extension(Shape):
    """What OpenAI's bodies have no word for: the field `foreword`."""

    prompt: Literal["trained", "chat", "raw"] | None = None
    """How the input is put to the model; None: as the prefix was trained."""
    inputs: Annotated[dict[str, str], Field(max_length=MAX_INPUTS)] = Field(default_factory=dict)
    """Texts for the places of a trained template, by column."""


class StructuredOutputs(Shape):
    """vLLM's way to say what an answer must belong to: one of the two."""

    regex: _Pattern | None = None
    json_: dict[str, Any] | None = Field(default=None, alias="json")


class Common(Shape):
    model: Annotated[str, Field(min_length=1, max_length=MAX_MODEL)]
    temperature: Annotated[float, Field(ge=0, le=MAX_TEMPERATURE)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    seed: int | None = None
    max_tokens: NewTokens | None = None
    stop: (
        Annotated[
            Annotated[_StopText, Tag("(text)")]
            | Annotated[list[_StopText], Field(max_length=MAX_STOPS), Tag("(list)")],
            Discriminator(_stop_form),
        ]
        | None
    ) = None
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=MAX_USER)] | None = None
    """Whose request it is, for the choice between stable and canary."""
    logit_bias: Annotated[
        dict[str, Any] | None, unless_empty("leave it out, or hold the answer to a schema")
    ] = None

    # Not OpenAI's; the names are vLLM's.
    top_k: Annotated[int, Field(ge=-1, le=MAX_TOKEN_ID)] | None = None
    """0 and -1: all."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_IDS)] | None = None
    ignore_eos: bool | None = None
    guided_regex: _Pattern | None = None
    guided_json: dict[str, Any] | None = None
    structured_outputs: StructuredOutputs | None = None

    foreword: Extension | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Common:
        if self.stream_options is not None and not self.stream:
            wrong("the answer is not streamed; set stream to true", "stream_options")
        if len(self.formats) > 1:
            wrong("an answer is held to one format only; give one", min(self.formats))
        return self

    @cached_property
    def formats(self) -> dict[str, Constraint]:
        """What answers must belong to, by the field that says so; one at most is accepted."""
        said = self.structured_outputs or StructuredOutputs()
        regexes = {"guided_regex": self.guided_regex, "structured_outputs.regex": said.regex}
        schemas = {"guided_json": self.guided_json, "structured_outputs.json": said.json_}
        return {
            field: Constraint("regex", text) for field, text in regexes.items() if text is not None
        } | {field: schema(value, field) for field, value in schemas.items() if value is not None}

    @property
    def constraint(self) -> Constraint | None:
        return next(iter(self.formats.values()), None)

    @property
    def sampling(self) -> Sampling:
        """OpenAI's defaults: temperature 1, everything else off."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p or _TOP_P_ZERO,
            top_k=max(0, self.top_k or 0),
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            seed=None if self.seed is None else self.seed % 2**63,
        )

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


def schema(value: dict[str, Any], field: str) -> Constraint:
    """The language of a JSON schema, which stands in that field."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > MAX_SCHEMA:
        wrong(f"a JSON schema of at most {MAX_SCHEMA} bytes is expected; make it smaller", field)
    return Constraint("json_schema", text)
