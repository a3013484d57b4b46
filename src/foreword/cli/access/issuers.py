"""`foreword access issuer`: whose tokens are believed beside API keys."""

from __future__ import annotations

from typing import Annotated

import typer

from foreword.cli.access.changing import change, table
from foreword.cli.access.options import Directory
from foreword.cli.output import print_json
from foreword.cli.registry import lines
from foreword.cli.registry.options import Actor, Json

app = typer.Typer(help="OpenID Connect issuers whose tokens are believed.", no_args_is_help=True)
Url = Annotated[str, typer.Argument(metavar="URL", help="The issuer, exactly as in `iss`.")]


@app.command()
def add(
    url: Url,
    audience: Annotated[str, typer.Option(help="This service's name there, as in `aud`.")],
    tenant: Annotated[
        list[str], typer.Option(help="Tenant it may speak for, or * for all; repeat it.")
    ],
    algorithm: Annotated[
        list[str] | None, typer.Option(help="Signatures it uses; repeat it. RS256 and ES256.")
    ] = None,
    jwks: Annotated[
        str, typer.Option(help="URL or file of its keys; without it, as it declares itself.")
    ] = "",
    tenant_claim: Annotated[str, typer.Option(help="Claim that names the tenant.")] = "tenant",
    scope_claim: Annotated[str, typer.Option(help="Claim that lists the scopes.")] = "scope",
    leeway: Annotated[int, typer.Option(help="Seconds its clock may differ, up to 60.")] = 30,
    access: Directory = None,
    actor: Actor = None,
) -> None:
    """Believe an issuer's tokens, or change how one is believed."""
    from foreword.serving.gateway.access.issuers import Issuer

    issuer = Issuer(
        url,
        audience,
        tuple(tenant),
        tuple(algorithm) if algorithm else ("RS256", "ES256"),
        jwks,
        tenant_claim,
        scope_claim,
        leeway,
    )
    change(access, lambda known: known.with_issuer(issuer), actor)
    lines.line("believed", f"{url} for {', '.join(tenant)}")


@app.command("list")
def list_(access: Directory = None, json: Json = False) -> None:
    """List the issuers."""
    from foreword.serving.gateway.access.form import issuer_to_json

    known = table(access).issuers
    if json:
        print_json([{"url": url, **issuer_to_json(issuer)} for url, issuer in known.items()])
        return
    lines.table(
        ["issuer", "audience", "tenants", "algorithms"],
        ([url, each.audience, " ".join(each.tenants), " ".join(each.algorithms)]
         for url, each in known.items()),
    )  # fmt: skip


@app.command()
def remove(url: Url, access: Directory = None, actor: Actor = None) -> None:
    """Believe an issuer's tokens no more."""
    change(access, lambda known: known.without_issuer(url), actor)
    lines.line("removed", url)
