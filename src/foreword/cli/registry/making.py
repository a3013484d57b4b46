"""`foreword registry init` and `migrate`: a registry comes to be, and stays readable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.output import print_json
from foreword.cli.registry.bases import identified
from foreword.cli.registry.changing import by
from foreword.cli.registry.lines import line
from foreword.cli.registry.options import Actor, Directory, Json, Reason

if TYPE_CHECKING:
    from foreword.registry.facts import Base
    from foreword.registry.layout import Layout


def init(
    registry: Directory = None,
    database: Annotated[
        str | None, typer.Option(help="postgresql://USER@HOST/NAME, by default a SQLite file.")
    ] = None,
    blobs: Annotated[
        str | None,
        typer.Option(help="s3://, gs:// or az://BUCKET/PREFIX, by default a directory."),
    ] = None,
    approvals: Annotated[
        int, typer.Option(min=0, help="Others who have to approve a version before its release.")
    ] = 0,
    base: Annotated[
        list[str] | None, typer.Option(help="Base model that is run here; repeat it.")
    ] = None,
    actor: Actor = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Make a registry; one with the same settings stays as it is."""
    from foreword.registry.layout import Layout, init, registry_path
    from foreword.registry.registry import Registry

    directory = registry or registry_path()
    defaults = Layout(directory)
    layout = Layout(directory, database or defaults.database, blobs or defaults.blobs, approvals)
    who = by(actor, reason)
    # Models are read first: one that cannot be used should not leave half of what was asked for.
    bases = [identified(each) for each in base or []]
    init(layout)
    with Registry.open(directory) as opened:
        for each in bases:
            opened.declare_base(each, by=who)
        here = opened.refresh().bases
    _say(layout, here, json)


def migrate(registry: Directory = None, json: Json = False) -> None:
    """Bring the database to the schema of this Foreword, all of it or nothing."""
    from foreword.registry.database import SCHEMA
    from foreword.registry.layout import Layout

    database = Layout.load(registry).open_database()
    try:
        before = database.schema()
        database.migrate()
    finally:
        database.close()
    if json:
        print_json({"database": database.shown, "before": before, "schema": SCHEMA})
        return
    since = "already" if before == SCHEMA else "now"
    line("schema", f"{database.shown} has {SCHEMA} {since}")


def _say(layout: Layout, bases: tuple[Base, ...], json: bool) -> None:
    if json:
        print_json(
            {
                "directory": str(layout.directory),
                "database": layout.database,
                "blobs": layout.blobs,
                "approvals": layout.approvals,
                "bases": [each.id for each in bases],
            }
        )
        return
    line("registry", f"{layout.directory} (journal {layout.database}, blobs {layout.blobs})")
    line("bases", ", ".join(each.id for each in bases) or "none yet")
    step = "publish ARTIFACT" if bases else "declare-base BASE"
    line("next", f"foreword registry {step}")
