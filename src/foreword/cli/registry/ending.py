"""`foreword registry revoke` and `retire`: a version is not used any more."""

from __future__ import annotations

from typing import Annotated

import typer

from foreword.cli.registry.changing import by, change
from foreword.cli.registry.options import Actor, Directory, Expect, Json, Reason, Ref


def revoke(
    ref: Ref,
    reason: Annotated[str, typer.Option(help="Why; whoever meets the version will ask.")],
    registry: Directory = None,
    actor: Actor = None,
    expect: Expect = None,
    json: Json = False,
) -> None:
    """Let nobody use a version any more. If it is stable, what was stable before it is again."""
    who = by(actor, reason)
    change(registry, lambda opened: opened.revoke(ref, by=who, expect=expect), json=json)


def retire(
    ref: Ref,
    registry: Directory = None,
    actor: Actor = None,
    reason: Reason = "",
    expect: Expect = None,
    json: Json = False,
) -> None:
    """Say that a version is not needed any more; refused while anything uses it."""
    who = by(actor, reason)
    change(registry, lambda opened: opened.retire(ref, by=who, expect=expect), json=json)
