"""`foreword inspect`: what an artifact is, without torch."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli.output import out, print_json, visible

if TYPE_CHECKING:
    from foreword.artifact import Artifact


def inspect(
    directory: Annotated[Path, typer.Argument(help="Artifact directory.")],
    json: Annotated[
        bool, typer.Option("--json", help="Print digest and manifest as JSON.")
    ] = False,
) -> None:
    """Check an artifact and show what it says about itself."""
    from foreword.artifact import open_artifact

    artifact = open_artifact(directory)
    if json:
        manifest = json_.loads(artifact.manifest_bytes)
        print_json({"digest": str(artifact.digest), "manifest": manifest})
        return
    width = 12
    for name, value in _facts(artifact):
        out.print(f"{name:<{width}}{visible(value)}", markup=False, soft_wrap=True)


def _facts(artifact: Artifact) -> list[tuple[str, str]]:
    manifest = artifact.manifest
    base = manifest.base
    sites = ", ".join(
        f"{site} {len(layers)} layers" for site, layers in manifest.geometry.sites.items()
    )
    facts = [
        ("name", f"{manifest.name} {manifest.version}"),
        ("digest", str(artifact.digest)),
        ("base", f"{base.id} ({base.architecture}, {base.fingerprint})"),
        ("prefix", f"{manifest.length} virtual tokens on {sites}, {manifest.dtype}"),
        ("size", f"{manifest.tensors.size:,} bytes of tensors"),
        ("prompt", f"{manifest.prompt.kind}: {manifest.prompt.template[:120]!r}"),
        ("created", manifest.created),
    ]
    record = dict(manifest.training)
    try:
        return facts + _training(record)
    except (KeyError, TypeError, ValueError, AttributeError):  # it only looks like ours
        return [*facts, ("training", json_.dumps(record))]


def _training(record: dict[str, Any]) -> list[tuple[str, str]]:
    """What our own training records hold; another tool's record is shown as it is."""
    if not {"data", "run", "metrics", "software"} <= set(record):
        return [("training", json_.dumps(record))] if record else []
    data, run, metrics = record["data"], record["run"], record["metrics"]
    return [
        ("loss", f"{metrics['held_out_loss']:.4f} held out, frozen model {metrics['frozen_loss']:.4f}"),
        ("data", f"{data['train_rows']} rows, {data['held_out_rows']} held out, {data['digest']}"),
        ("run", f"{run['steps']} steps (best {run['best_step']}), {run['seconds']} s, "
                f"seed {record['seed']}, peak learning rate {run['peak_lr']:g}"),
        ("software", ", ".join(f"{k} {v}" for k, v in record["software"].items())),
    ]  # fmt: skip
