"""`foreword registry alias`: an own word for a version."""

from __future__ import annotations

from typing import Annotated

import typer

from foreword.cli.registry.changing import by, change
from foreword.cli.registry.options import Actor, Directory, Expect, Json, Reason


def alias(
    ref: Annotated[
        str, typer.Argument(metavar="REF", help="The version; with --remove the name alone.")
    ],
    word: Annotated[str, typer.Argument(help="Lower-case letters, digits or '-', such as lts.")],
    remove: Annotated[
        bool, typer.Option("--remove", help="Let the word stand for nothing any more.")
    ] = False,
    registry: Directory = None,
    actor: Actor = None,
    reason: Reason = "",
    expect: Expect = None,
    json: Json = False,
) -> None:
    """Let a word stand for a version, or move it to another one."""
    who = by(actor, reason)
    if remove:
        change(registry, lambda it: it.unalias(ref, word, by=who, expect=expect), json=json)
    else:
        change(registry, lambda it: it.alias(word, ref, by=who, expect=expect), json=json)
