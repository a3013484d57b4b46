"""docs/cli.md keeps up with the program: every command, option, argument and exit code is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from foreword import errors
from foreword.cli.main import INTERRUPTED, app

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def commands(command: Any = None, path: str = "foreword") -> Iterator[tuple[str, Any]]:
    """Every command of the program with its full name."""
    command = command or typer.main.get_command(app)
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


COMMANDS = dict(commands())


def part(name: str) -> str:
    """What the page says about a command: its section, or its item in its group's section."""
    if name == "foreword":
        return PAGE.split("\n## ")[0]
    group = " ".join(name.split()[:2])
    found = re.search(rf"^## {group}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no section '## {group}'"
    if group == name:
        return found[1]
    item = re.search(rf"^- `{name}\b(.*?)(?=^- |\Z)", found[1], re.MULTILINE | re.DOTALL)
    assert item, f"docs/cli.md does not describe `{name}`"
    return item[1]


def long_options(command: Any) -> set[str]:
    options = {
        word
        for parameter in command.params
        for word in (*parameter.opts, *parameter.secondary_opts)
        if word.startswith("--")
    }
    return options - {"--help"}


def test_the_walk_finds_the_whole_program() -> None:
    assert {"foreword train", "foreword base add", "foreword export-peft"} <= set(COMMANDS)
    assert "--max-new-tokens" in long_options(COMMANDS["foreword generate"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_its_options_are_described(name: str) -> None:
    indent = "  " if len(name.split()) > 2 else ""
    described = set(re.findall(rf"^{indent}- `(--[a-z-]+)`", part(name), re.MULTILINE))

    assert long_options(COMMANDS[name]) - described == set(), "missing from docs/cli.md"
    assert described - long_options(COMMANDS[name]) - {"--help"} == set(), "no such option"


@pytest.mark.parametrize("name", [n for n in COMMANDS if n != "foreword"])
def test_every_command_has_an_example_and_is_in_the_table(name: str) -> None:
    group = " ".join(name.split()[:2])

    assert re.search(rf"^    {name}\b", PAGE, re.MULTILINE), "no example"
    assert f"| [`{group}`](#{group.replace(' ', '-')}) |" in PAGE


def test_defaults_that_are_numbers_are_the_real_ones() -> None:
    described = dict(
        re.findall(r"^- `--([a-z-]+)`: .*\((\d+)\)", part("foreword generate"), re.MULTILINE)
    )
    real = {p.opts[0].lstrip("-"): p.default for p in COMMANDS["foreword generate"].params}

    assert {"max-new-tokens", "temperature", "seed"} == set(described)
    assert all(float(real[name]) == float(value) for name, value in described.items())


def test_every_exit_code_is_described() -> None:
    def codes(kind: type[errors.ForewordError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(inner) for inner in kind.__subclasses__()))

    described = {int(c) for c in re.findall(r"^\| `(\d+)` \|", PAGE, re.MULTILINE)}
    assert described == codes(errors.ForewordError) | {0, INTERRUPTED}
