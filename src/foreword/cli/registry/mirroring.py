"""`foreword registry mlflow`: the same version, where a team looks for its models."""

from __future__ import annotations

from typing import Annotated

import typer

from foreword.cli.output import print_json
from foreword.cli.registry.lines import line
from foreword.cli.registry.options import Directory, Json, Ref


def mlflow(
    ref: Ref,
    uri: Annotated[
        str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="Address of the MLflow server.")
    ],
    experiment: Annotated[
        str | None, typer.Option(help="Of the run; the default is foreword.")
    ] = None,
    registry: Directory = None,
    json: Json = False,
) -> None:
    """Show a version in an MLflow server; again brings its tags up to date. Needs the extra mlflow."""
    from foreword.registry.mlflow import EXPERIMENT, register
    from foreword.registry.registry import Registry

    with Registry.open(registry) as opened:
        shown = register(opened, ref, uri, experiment or EXPERIMENT)
    if json:
        print_json(shown.to_json())
        return
    what = "is new" if shown.is_new else "was there and is up to date"
    line("mlflow", f"version {shown.version} of model {shown.model} {what} (run {shown.run_id})")
