"""`foreword access kill` and `unkill`: switch off at once, and on again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.access.changing import change
from foreword.cli.access.options import Directory
from foreword.cli.registry import lines
from foreword.cli.registry.changing import by
from foreword.cli.registry.options import Actor

if TYPE_CHECKING:
    from foreword.serving.gateway.access.table import AccessTable

Target = Annotated[
    str, typer.Argument(help="tenant/prefix, tenant/prefix@1.2.3, sha256:..., or a tenant.")
]
IsTenant = Annotated[bool, typer.Option("--tenant", help="TARGET is a tenant: all of it.")]


def kill(
    target: Target,
    reason: Annotated[str, typer.Option(help="Why, for whoever finds it switched off.")],
    tenant: IsTenant = False,
    access: Directory = None,
    actor: Actor = None,
) -> None:
    """Switch off a prefix, a version, or a tenant with its keys and prefixes."""
    from foreword.serving.gateway.access.kills import Kill

    made = Kill(reason, by(actor).actor, datetime.now(UTC))

    def killed(known: AccessTable) -> AccessTable:
        if tenant:
            return known.with_killed_tenant(target, made)
        return known.with_kill(target, made)

    change(access, killed, actor, reason)
    lines.line("killed", f"{target}; servers see it within a second")


def unkill(
    target: Target, tenant: IsTenant = False, access: Directory = None, actor: Actor = None
) -> None:
    """Switch it on again."""

    def alive(known: AccessTable) -> AccessTable:
        return known.without_killed_tenant(target) if tenant else known.without_kill(target)

    change(access, alive, actor)
    lines.line("on again", target)
