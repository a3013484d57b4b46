"""The body of POST /v1/completions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from foreword.serving.wire.common import Common, TokenId
from foreword.serving.wire.limits import MAX_LOGPROBS, MAX_PROMPTS, MAX_VALUES
from foreword.serving.wire.shapes import unless_empty, unsupported

_Tokens = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_VALUES, fail_fast=True)]
_Several = Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)


def _form(value: Any) -> str:
    """By the first entry; the others have to be like it."""
    if not isinstance(value, list):
        return "(text)"
    first = value[0] if value else ""
    if isinstance(first, list):
        return "(token lists)"
    return "(tokens)" if isinstance(first, int) else "(texts)"


Prompt = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[list[str], _Several, Tag("(texts)")]
    | Annotated[_Tokens, Tag("(tokens)")]
    | Annotated[list[_Tokens], _Several, Tag("(token lists)")],
    Discriminator(_form),
]


class CompletionBody(Common):
    prompt: Prompt
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None
    echo: Annotated[bool | None, unless_empty("put the prompt before the answer yourself")] = None
    suffix: Annotated[str | None, unless_empty("it writes on at the end of a prompt only")] = None

    @model_validator(mode="after")
    def _agrees(self) -> CompletionBody:
        if self.best_of is not None and self.best_of != (self.n or 1):
            unsupported("it is not n, and answers are not ranked; leave it out", "best_of")
        return self

    @property
    def prompts(self) -> tuple[str | tuple[int, ...], ...]:
        """One or several, each a text or token ids."""
        if isinstance(self.prompt, str):
            return (self.prompt,)
        if isinstance(self.prompt[0], int):
            return (tuple(token for token in self.prompt if isinstance(token, int)),)
        return tuple(tuple(each) if isinstance(each, list) else each for each in self.prompt)  # type: ignore[misc]
