"""One rendering for training and for use: places, braces, chat templates, and what is refused."""

from __future__ import annotations

import pytest

from foreword.artifact import PromptFormat
from foreword.errors import ConfigError
from foreword.prefix.prompts import chosen_format, places, render, require_places

ROW = {"input": "a {b} \n", "kind": "x", "Order ID": "7"}


def template(text: str) -> PromptFormat:
    return PromptFormat("template", text)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{input}", "a {b} \n"),
        ("{input}\n", "a {b} \n\n"),
        ("{{{kind}}}", "{x}"),
        ("{{input}}", "{input}"),
        ("{kind}{kind} {Order ID}", "xx 7"),
        ("no place at all", "no place at all"),
        ("", ""),
    ],
)
def test_places_are_filled_and_braces_kept(text: str, rendered: str) -> None:
    assert render(template(text), ROW) == rendered


REFUSED = {
    "{inptu}": (r"did you mean \{input\}", "prompt.column"),
    "{nothing like it}": ("columns are input, kind, Order ID", "prompt.column"),
    "{}": (r"place \{\}", "prompt.column"),
    "{input.__class__}": ("no such column", "prompt.column"),
    "{kind[0]}": ("no such column", "prompt.column"),
    "{input": ("write {{ and }} for braces", "prompt.template"),
    "input}": ("write {{ and }} for braces", "prompt.template"),
    "{input:>20}": (r"only \{input\} is possible", "prompt.template"),
    "{input!r}": (r"only \{input\} is possible", "prompt.template"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_other_places_are_refused(text: str) -> None:
    message, code = REFUSED[text]
    for refuse in (
        lambda: render(template(text), ROW),
        lambda: require_places(template(text), ROW),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            refuse()
        assert caught.value.code == code


def test_places_are_the_columns_a_format_asks_for() -> None:
    assert places(template("{kind}: {input} {{kind}}")) == ("kind", "input")
    assert places(PromptFormat("chat", "{% whatever %}")) == ("input",)


def test_the_default_is_the_input_and_a_line_break() -> None:
    assert render(chosen_format(None), {"input": "a"}) == "a\n"
    assert chosen_format("{kind}") == template("{kind}")


def test_chat_needs_a_chat_template() -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        render(chosen_format("chat"), ROW)
