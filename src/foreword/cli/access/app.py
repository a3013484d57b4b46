"""The verbs of `foreword access`."""

from __future__ import annotations

import typer

from foreword.cli.access import issuers, keys, kills, tenants

app = typer.Typer(
    help="Access: tenants, API keys and kill switches of the server.", no_args_is_help=True
)
app.add_typer(tenants.app, name="tenant")
app.add_typer(keys.app, name="key")
app.add_typer(issuers.app, name="issuer")
app.command("kill")(kills.kill)
app.command("unkill")(kills.unkill)
