"""The verbs of `foreword registry`, in the order in which a version meets them."""

from __future__ import annotations

import typer

from foreword.cli.registry import (
    alias,
    bases,
    checking,
    copying,
    ending,
    history,
    keeping,
    look,
    making,
    matrix,
    mirroring,
    publish,
    release,
    show,
)

app = typer.Typer(
    help="Registry: versions that can be proved, found, released and taken back.",
    no_args_is_help=True,
)
app.command("init")(making.init)
app.command("declare-base")(bases.declare_base)
app.command("withdraw-base")(bases.withdraw_base)
app.command("publish")(publish.publish)
app.command("attest")(publish.attest)
app.command("approve")(release.approve)
app.command("release")(release.release)
app.command("shift")(release.shift)
app.command("rollback")(release.rollback)
app.command("revoke")(ending.revoke)
app.command("retire")(ending.retire)
app.command("alias")(alias.alias)
app.command("list")(look.list_)
app.command("show")(show.show)
app.command("resolve")(look.resolve)
app.command("log")(history.log)
app.command("why")(history.why)
app.command("matrix")(matrix.matrix)
app.command("mlflow")(mirroring.mlflow)
app.command("retention")(keeping.retention)
app.command("gc")(keeping.gc)
app.command("fsck")(checking.fsck)
app.command("export")(copying.export)
app.command("restore")(copying.restore)
app.command("migrate")(making.migrate)
