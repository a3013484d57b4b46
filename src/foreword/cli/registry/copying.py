"""`foreword registry export` and `restore`: a backup, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.output import print_json
from foreword.cli.registry.lines import line, numbered
from foreword.cli.registry.options import Directory, Json

if TYPE_CHECKING:
    from foreword.registry.backup import Export

_Copy = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the export.")]


def export(directory: _Copy, registry: Directory = None, json: Json = False) -> None:
    """Copy a registry into a directory, while others use it; an older export is brought up to date."""
    from foreword.registry.backup import export as copy
    from foreword.registry.registry import Registry

    with Registry.open(registry) as opened:
        made = copy(opened, directory, datetime.now(UTC))
    if json:
        print_json(made.to_json())
        return
    _tell("exported", made)
    line("next", "keep the head elsewhere; foreword registry fsck --known takes it")


def restore(directory: _Copy, registry: Directory = None, json: Json = False) -> None:
    """Fill an empty registry, which `init` has made, from an export."""
    from foreword.registry.backup import restore as fill
    from foreword.registry.registry import Registry

    with Registry.open(registry) as opened:
        source = fill(directory, opened)
    if json:
        print_json(source.to_json())
        return
    _tell("restored", source)
    line("next", "foreword registry fsck")


def _tell(what: str, export: Export) -> None:
    entries = numbered(len(export.entries), "entry", "entries")
    line(what, f"{entries} and {numbered(export.to_json()['blobs'], 'blob')}")
    line("head", f"{export.head.seq}:{export.head.hash}")
