"""Options that many verbs of the registry have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Directory = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        help="Directory of the registry, by default FOREWORD_REGISTRY or FOREWORD_HOME/registry.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Actor = Annotated[
    str | None,
    typer.Option(envvar="FOREWORD_ACTOR", help="Who does it, by default USER@HOST."),
]
Reason = Annotated[str, typer.Option(help="Why, for whoever reads the journal.")]
Expect = Annotated[
    int | None,
    typer.Option(
        "--expect",
        metavar="GENERATION",
        help="Do it only if the name is still at this generation, which `show` prints.",
    ),
]
Trust = Annotated[
    Path | None, typer.Option(help="Trust policy, by default trust.toml in FOREWORD_HOME.")
]
Ref = Annotated[
    str,
    typer.Argument(
        metavar="REF", help="tenant/prefix, tenant/prefix@1.2.3, tenant/prefix@alias or sha256:..."
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="tenant/prefix")]
