"""`foreword import-peft` and `export-peft`: the way in from PEFT, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from foreword.cli.output import out


def import_peft(
    directory: Annotated[Path, typer.Argument(help="PEFT adapter directory.")],
    base: Annotated[str, typer.Option(help="The base model it was trained on.")],
    out_: Annotated[Path, typer.Option("--out", help="Directory for the artifact.")],
    name: Annotated[str, typer.Option(help="Name of the prefix.")] = "imported",
    version: Annotated[str, typer.Option(help="Semantic version.")] = "0.1.0",
    template: Annotated[
        str, typer.Option(help="Prompt template it was trained with.")
    ] = "{input}\n",
) -> None:
    """Turn a PEFT prefix-tuning or CARTRIDGE adapter into an artifact."""
    from foreword.artifact import PromptFormat, pack, write_artifact
    from foreword.artifact.peft import read_peft
    from foreword.cli.output import quiet_libraries
    from foreword.prefix.base_model import load_base
    from foreword.prefix.kv import from_bytes
    from foreword.prefix.probe import make_probes, probe_inputs

    quiet_libraries()
    loaded = load_base(base)
    adapter = read_peft(directory, loaded.geometry)
    prefix = from_bytes(adapter.geometry, adapter.length, adapter.dtype, adapter.tensors)
    artifact = pack(
        name=name,
        version=version,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        base=loaded.ref,
        geometry=adapter.geometry,
        length=adapter.length,
        dtype=adapter.dtype,
        prompt=PromptFormat("template", template.replace("\\n", "\n")),
        training={"imported_from": f"PEFT {adapter.kind}", "base_name": adapter.base_name},
        probes=make_probes(loaded, prefix, probe_inputs(loaded)),
        tensors=adapter.tensors,
    )
    write_artifact(artifact, out_)
    out.print(f"artifact  {out_}  ({artifact.digest})", soft_wrap=True)


def export_peft(
    directory: Annotated[Path, typer.Argument(help="Artifact directory.")],
    out_: Annotated[Path, typer.Option("--out", help="Directory for the adapter.")],
) -> None:
    """Write an artifact as a PEFT prefix-tuning adapter."""
    from foreword.artifact import open_artifact
    from foreword.artifact.peft import write_peft

    write_peft(open_artifact(directory), out_)
    out.print(
        f"adapter   {out_}  (PeftModel.from_pretrained(model, {str(out_)!r}))", soft_wrap=True
    )
