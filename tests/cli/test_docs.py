"""docs/cli.md names every command, option and exit code there is."""

from __future__ import annotations

from pathlib import Path

import click
import typer

from foreword import errors
from foreword.cli.main import INTERRUPTED, app

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def commands(command: click.Command, path: str = "foreword") -> list[tuple[str, click.Command]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        return [(path, command)]
    return [found for name, sub in inner.items() for found in commands(sub, f"{path} {name}")]


def test_every_command_and_option_is_documented() -> None:
    for path, command in commands(typer.main.get_command(app)):
        assert f"`{path}" in TEXT, path
        for parameter in command.params:
            for name in parameter.opts:
                if name.startswith("--") and name != "--help":
                    assert f"`{name}" in TEXT, f"{path} {name}"


def test_every_exit_code_is_documented() -> None:
    kinds = [errors.ForewordError, *errors.ForewordError.__subclasses__()]
    for code in {0, INTERRUPTED, *(kind.exit_code for kind in kinds)}:
        assert f"| {code} |" in TEXT, code
