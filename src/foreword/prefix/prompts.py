"""How an input is put to the model: one function for training, generation and serving."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
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
    try:
        parts = list(Formatter().parse(prompt.template))
    except ValueError as e:
        raise ConfigError(
            f"the template {prompt.template!r} cannot be read ({e}); write {{{{ and }}}} for braces",
            code="prompt.template",
        ) from e
    text = []
    for literal, place, _, _ in parts:
        text.append(literal)
        if place is not None:
            text.append(_column(place, columns))
    return "".join(text)


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, text: str, prompt: PromptFormat, kind: str
) -> list[int]:
    """Token ids of a rendered prompt, with the special tokens the model expects around a text.

    A chat template writes its own; a decoder's prompt goes on, so it never ends with the
    end-of-sequence token that some tokenizers add.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=prompt.kind != "chat")["input_ids"]
    if kind == "causal" and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1] if prompt.kind != "chat" else ids
    if not ids:
        raise ConfigError("the prompt has no tokens; give some text", code="prompt.empty")
    return ids


def _column(place: str, columns: Mapping[str, str]) -> str:
    if place in columns:
        return columns[place]
    near = get_close_matches(place, list(columns), n=1)
    hint = f"did you mean {{{near[0]}}}?" if near else f"columns are {', '.join(columns)}"
    raise ConfigError(
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
