"""`foreword registry declare-base` and `withdraw-base`: the models that prefixes are run on here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.registry.changing import by, change
from foreword.cli.registry.options import Actor, Directory, Json, Reason

if TYPE_CHECKING:
    from foreword.registry.facts import Base


def declare_base(
    base: Annotated[str, typer.Argument(help="Name, directory, GGUF file or Hugging Face id.")],
    id_: Annotated[
        str | None, typer.Option("--id", help="What it is called here, by default as given.")
    ] = None,
    registry: Directory = None,
    actor: Actor = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Load a model and say that it is run here; prefixes made for it may be published."""
    who, found = by(actor, reason), identified(base, id_)
    change(registry, lambda opened: opened.declare_base(found, by=who), json=json)


def withdraw_base(
    id_: Annotated[str, typer.Argument(metavar="ID", help="What the base is called here.")],
    registry: Directory = None,
    actor: Actor = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Say that a model is not run here any more; refused while something that serves needs it."""
    who = by(actor, reason)
    change(registry, lambda opened: opened.withdraw_base(id_, by=who), json=json)


def identified(base: str, id_: str | None = None) -> Base:
    """What the registry has to know of a model. Loads it: its shapes are read by running it.

    Raises:
        CompatibilityError: it is not there, or cannot carry a prefix.
        ArtifactError: the name it shall have cannot be one (`base.id`).
    """
    from foreword.cli.output import quiet_libraries
    from foreword.prefix.base_model import load_base
    from foreword.registry.facts import Base, check_id

    check_id(id_ or base)  # before minutes are spent on loading
    quiet_libraries()
    loaded = load_base(base)
    return Base(replace(loaded.ref, id=id_ or base), loaded.geometry)
