"""`foreword access tenant`: who there is, and what each may use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli.access.changing import change, limits, table
from foreword.cli.access.options import (
    Directory,
    Fallback,
    Note,
    Requests,
    Streams,
    Tenant,
    Tokens,
)
from foreword.cli.output import print_json
from foreword.cli.registry import lines
from foreword.cli.registry.options import Actor, Json
from foreword.errors import UsageError

if TYPE_CHECKING:
    from foreword.serving.gateway.access.table import AccessTable

app = typer.Typer(help="Tenants: who may use which prefixes, and how much.", no_args_is_help=True)
Patterns = Annotated[
    list[str], typer.Argument(metavar="PREFIX...", help="other/prefix, or other/* for all.")
]


@app.command()
def add(
    name: Tenant,
    grant: Annotated[
        list[str] | None,
        typer.Option(help="Another tenant's prefix, or other/* for all; repeat it."),
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="May use the bare model.")] = False,
    fallback: Fallback = None,
    requests: Requests = None,
    tokens: Tokens = None,
    streams: Streams = None,
    note: Note = "",
    access: Directory = None,
    actor: Actor = None,
) -> None:
    """Add a tenant. It may use its own prefixes and those granted to it."""
    from foreword.serving.gateway.access.tenants import NO_FALLBACK, UNLIMITED
    from foreword.serving.gateway.access.tenants import Tenant as Made

    made = Made(
        name,
        tuple(grant or ()),
        base,
        fallback or NO_FALLBACK,
        limits(UNLIMITED, requests, tokens, streams),
        note=note,
    )

    def added(known: AccessTable) -> AccessTable:
        if name in known.tenants:
            raise UsageError(
                f"there is a tenant {name!r} already; see `foreword access tenant --help` for what "
                "changes it",
                code="access.tenant_exists",
            )
        return known.with_tenant(made)

    change(access, added, actor)
    lines.line("added", f"{name}; `foreword access key issue {name}` makes a key for it")


@app.command("list")
def list_(access: Directory = None, json: Json = False) -> None:
    """List the tenants."""
    known = table(access)
    if json:
        print_json([_shown(known, name) for name in sorted(known.tenants)])
        return
    lines.table(
        ["tenant", "keys", "state", "base", "fallback", "requests", "tokens", "streams"],
        (_cells(known, name) for name in sorted(known.tenants)),
    )


@app.command()
def show(name: Tenant, access: Directory = None, json: Json = False) -> None:
    """Show a tenant with its grants, limits and keys."""
    known = table(access)
    tenant = known.tenant(name)
    if json:
        print_json(_shown(known, name))
        return
    _, keys, state, _, fallback, *most = _cells(known, name)
    lines.line("tenant", f"{name}, {state}, {lines.numbered(int(keys), 'key')}")
    lines.line("uses", ", ".join([f"{name}/*", *tenant.grants, *(["base"] if tenant.base else [])]))
    lines.line("fallback", fallback)
    lines.line("limits", "requests {}, tokens {}, streams {}".format(*most))
    if tenant.note:
        lines.line("note", tenant.note)


@app.command()
def remove(name: Tenant, access: Directory = None, actor: Actor = None) -> None:
    """Remove a tenant and its keys. Its prefixes stay in the registry."""
    change(access, lambda known: known.without_tenant(name), actor)
    lines.line("removed", name)


@app.command()
def grant(
    name: Tenant,
    prefixes: Patterns,
    take_back: Annotated[
        bool, typer.Option("--remove", help="Take the grants back instead.")
    ] = False,
    access: Directory = None,
    actor: Actor = None,
) -> None:
    """Let a tenant use prefixes of others."""

    def granted(known: AccessTable) -> AccessTable:
        tenant = known.tenant(name)
        left = [each for each in tenant.grants if each not in prefixes]
        return known.with_tenant(
            replace(tenant, grants=tuple(left if take_back else [*left, *dict.fromkeys(prefixes)]))
        )

    changed = change(access, granted, actor).tenant(name)
    lines.line("grants", f"{name}: {', '.join(changed.grants) or 'none'}")


@app.command()
def limit(
    name: Tenant,
    requests: Requests = None,
    tokens: Tokens = None,
    streams: Streams = None,
    access: Directory = None,
    actor: Actor = None,
) -> None:
    """Say how much a tenant may ask for; what is not given stays."""
    _replace(
        access, actor, name,
        lambda known: {"limits": limits(known.limits, requests, tokens, streams)},
    )  # fmt: skip


@app.command("set")
def set_(
    name: Tenant,
    base: Annotated[bool | None, typer.Option(help="May use the bare model.")] = None,
    fallback: Fallback = None,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Whether its keys are believed.")
    ] = None,
    note: Annotated[str | None, typer.Option(help="One line for people.")] = None,
    access: Directory = None,
    actor: Actor = None,
) -> None:
    """Change what a tenant may; what is not given stays."""
    given = {"base": base, "fallback": fallback, "enabled": enabled, "note": note}
    changes = {field: value for field, value in given.items() if value is not None}
    _replace(access, actor, name, lambda _known: changes)


def _replace(access: Path | None, actor: str | None, name: str, changes: Any) -> None:
    change(
        access,
        lambda known: known.with_tenant(replace(known.tenant(name), **changes(known.tenant(name)))),
        actor,
    )
    show(name, access)


def _shown(known: AccessTable, name: str) -> dict[str, Any]:
    from foreword.serving.gateway.access.form import kill_to_json, tenant_to_json

    kill = known.killed_tenants.get(name)
    return {
        "name": name,
        **tenant_to_json(known.tenant(name)),
        "killed": kill and kill_to_json(kill),
        "keys": sorted(key.id for key in known.keys.values() if key.tenant == name),
    }


def _cells(known: AccessTable, name: str) -> list[str]:
    tenant = known.tenant(name)
    keys = sum(key.tenant == name for key in known.keys.values())
    state = "killed" if name in known.killed_tenants else "on" if tenant.enabled else "off"
    most = (tenant.limits.requests, tenant.limits.tokens, tenant.limits.streams)
    return [
        name, str(keys), state, "base" if tenant.base else "-", tenant.fallback,
        *("no limit" if each is None else f"{each:,}" for each in most),
    ]  # fmt: skip
