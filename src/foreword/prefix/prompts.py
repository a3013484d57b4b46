"""How an input is put to the model: one function for training, generation and serving."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache
from string import Formatter

from transformers import PreTrainedTokenizerBase

from foreword.artifact import PromptFormat
from foreword.errors import ConfigError

DEFAULT = PromptFormat("template", "{input}\n")
PLAIN = PromptFormat("template", "{input}")


def chosen_format(
    template: str | None, tokenizer: PreTrainedTokenizerBase | None = None
) -> PromptFormat:
    """The format a recipe's `data.template` asks for; of `chat`, the tokenizer's text is kept."""
    if template == "chat":
        return PromptFormat("chat", str(tokenizer.chat_template or "") if tokenizer else "")
    return PromptFormat("template", template) if template else DEFAULT


def render(
    prompt: PromptFormat,
    columns: Mapping[str, str],
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> str:
    """The text the model reads for one input.

    A template's `{column}` places are filled from `columns`, `{{` and `}}` are braces. With kind
    `chat`, the column `input` becomes a user message in the model's chat template.

    Raises:
        ConfigError: a place without a column, or no chat template (code `prompt.*`).
    """
    if prompt.kind == "chat":
        return _chat(columns, tokenizer)
    text = []
    for literal, place in _parts(prompt.template):
        text.append(literal)
        if place is not None:
            text.append(_column(place, columns))
    return "".join(text)


def places(prompt: PromptFormat) -> tuple[str, ...]:
    """The columns a format asks for."""
    if prompt.kind == "chat":
        return ("input",)
    return tuple(place for _, place in _parts(prompt.template) if place is not None)


def require_places(prompt: PromptFormat, columns: Collection[str]) -> None:
    """Refuse a format that asks for a column which is not among `columns`.

    Raises:
        ConfigError: names the place and the nearest column (code `prompt.column`).
    """
    for place in places(prompt):
        if place not in columns:
            raise _no_column(place, columns)


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, text: str, prompt: PromptFormat, kind: str
) -> list[int]:
    """Token ids of a rendered prompt, with the special tokens the model expects around a text.

    A chat template writes its own; a decoder's prompt goes on, so it never ends with the
    end-of-sequence token that some tokenizers add.

    Raises:
        ConfigError: it has no tokens (code `prompt.empty`).
    """
    ids: list[int] = tokenizer(text, add_special_tokens=prompt.kind != "chat")["input_ids"]
    return as_prompt(ids, prompt, kind, tokenizer.eos_token_id)


def as_prompt(ids: list[int], prompt: PromptFormat, kind: str, eos: int | None) -> list[int]:
    """The same for what is tokens already, as the tokenizer gives them; `eos` ends a sentence.

    Raises:
        ConfigError: there are none (code `prompt.empty`).
    """
    if kind == "causal" and prompt.kind != "chat" and len(ids) > 1 and ids[-1] == eos:
        ids = ids[:-1]
    if not ids:
        raise ConfigError("the prompt has no tokens; give some text", code="prompt.empty")
    return ids


@lru_cache(1_024)
def _parts(template: str) -> tuple[tuple[str, str | None], ...]:
    """Literal text, and the place that follows it if there is one."""
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as e:
        raise ConfigError(
            f"the template {template!r} cannot be read ({e}); write {{{{ and }}}} for braces",
            code="prompt.template",
        ) from e
    for _, place, form, conversion in parsed:
        if form or conversion:
            raise ConfigError(
                f"the template has more than a column's name in the place {{{place}...}}; only "
                f"{{{place}}} is possible",
                code="prompt.template",
            )
    return tuple((literal, place) for literal, place, _, _ in parsed)


def _column(place: str, columns: Mapping[str, str]) -> str:
    if place in columns:
        return columns[place]
    raise _no_column(place, columns)


def _no_column(place: str, columns: Collection[str]) -> ConfigError:
    near = get_close_matches(place, columns, n=1)
    hint = f"did you mean {{{near[0]}}}?" if near else f"columns are {', '.join(columns)}"
    return ConfigError(
        f"the template has a place {{{place}}}, but there is no such column; {hint}",
        code="prompt.column",
    )


def _chat(columns: Mapping[str, str], tokenizer: PreTrainedTokenizerBase | None) -> str:
    if tokenizer is None or not tokenizer.chat_template:
        raise ConfigError(
            "the template is `chat`, but this base has no chat template; write one with {input}",
            code="prompt.no_chat_template",
        )
    message = [{"role": "user", "content": _column("input", columns)}]
    text: str = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    return text
