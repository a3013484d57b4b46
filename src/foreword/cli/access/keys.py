"""`foreword access key`: issue, list, rotate and revoke API keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from foreword.cli.access.changing import change, limits, table
from foreword.cli.access.options import Directory, KeyId, Note, Requests, Streams, Tokens
from foreword.cli.output import errors, print_json, visible, write
from foreword.cli.registry import lines
from foreword.cli.registry.options import Actor, Json
from foreword.errors import UsageError

if TYPE_CHECKING:
    from foreword.serving.gateway.access.keys import KeyRecord
    from foreword.serving.gateway.access.principal import Scope

app = typer.Typer(help="API keys of tenants and operators.", no_args_is_help=True)
_MOST_DAYS = 36_500


@app.command()
def issue(
    tenant: Annotated[
        str | None, typer.Argument(metavar="[TENANT]", help="Whose key it is.")
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="A key of the operator's API, of no tenant.")
    ] = False,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it is for, `generate` or `models`; repeat it. Without it: both."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Limit it to a prefix, tenant/* or base; repeat it."),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=_MOST_DAYS, help="How long it counts.")
    ] = None,
    requests: Requests = None,
    tokens: Tokens = None,
    streams: Streams = None,
    note: Note = "",
    access: Directory = None,
    actor: Actor = None,
) -> None:
    """Issue a key and print it: it is kept nowhere, so it cannot be shown again."""
    from foreword.serving.gateway.access.keys import OPERATOR
    from foreword.serving.gateway.access.keys import issue as issued
    from foreword.serving.gateway.access.tenants import UNLIMITED

    if admin == (tenant is not None):
        raise UsageError("name a tenant, or use --admin for an operator's key", code="access.value")
    now = datetime.now(UTC)
    text, record = issued(
        tenant or OPERATOR,
        now,
        scopes=cast("frozenset[Scope]", frozenset(scope)) if scope else None,
        only=tuple(only) if only else None,
        expires=now + timedelta(days=days) if days else None,
        limits=limits(UNLIMITED, requests, tokens, streams),
        note=note,
    )
    change(access, lambda known: known.with_key(record), actor)
    _tell(record, text)


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only those of a tenant.")] = None,
    access: Directory = None,
    json: Json = False,
) -> None:
    """List the keys, without anything that helps to use them."""
    from foreword.serving.gateway.access.form import key_to_json

    known = sorted(table(access).keys.values(), key=lambda key: (key.tenant, key.created, key.id))
    wanted = [key for key in known if tenant in (None, key.tenant)]
    if json:
        print_json([{"id": key.id, **key_to_json(key)} for key in wanted])
        return
    now = datetime.now(UTC)
    lines.table(
        ["key", "tenant", "state", "scopes", "only", "created", "expires", "note"],
        (_cells(key, now) for key in wanted),
    )


@app.command()
def rotate(
    key: KeyId,
    overlap: Annotated[
        float, typer.Option(min=0, max=24 * _MOST_DAYS, help="Hours in which both are believed.")
    ] = 24.0,
    access: Directory = None,
    actor: Actor = None,
) -> None:
    """Issue a successor that may do the same, print it, and give the old key an end."""
    from foreword.serving.gateway.access.keys import draw

    secret, now = draw(), datetime.now(UTC)
    changed = change(
        access,
        lambda known: known.with_successor(key, secret, now, timedelta(hours=overlap)),
        actor,
    )
    _tell(changed.key(secret.id), secret.text)
    _say("old", f"{key} is believed until {_day(changed.key(key).expires)}")


@app.command()
def revoke(key: KeyId, access: Directory = None, actor: Actor = None) -> None:
    """Believe a key no more. Its record stays, so that logs can still be read."""
    now = datetime.now(UTC)
    change(access, lambda known: known.with_revoked(key, now), actor)
    lines.line("revoked", key)


def _tell(record: KeyRecord, text: str) -> None:
    """The key alone on stdout, for a pipe into where secrets are kept; the rest to stderr."""
    whose = f"of {record.tenant}" if record.tenant else "of an operator"
    _say("key", f"{record.id} {whose}, expires {_day(record.expires)}; it is shown only now")
    write(text + "\n")


def _say(label: str, text: str) -> None:
    errors.print(f"{label:<9} {visible(text)}", markup=False, soft_wrap=True)


def _cells(key: KeyRecord, now: datetime) -> list[Any]:
    return [
        key.id,
        key.tenant or "-",
        key.ended(now) or "on",
        " ".join(sorted(key.scopes)),
        " ".join(key.only) if key.only is not None else "-",
        _day(key.created),
        _day(key.expires),
        key.note,
    ]


def _day(when: datetime | None) -> str:
    from foreword.signing.times import stamp

    return stamp(when) if when else "never"
