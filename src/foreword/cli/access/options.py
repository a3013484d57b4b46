"""Options that several verbs of `foreword access` have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Directory = Annotated[
    Path | None,
    typer.Option(
        "--access", help="Directory of the access table, by default FOREWORD_HOME/gateway."
    ),
]
Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="The part of a name before the '/'.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="A key's 16 digits, as `key list` shows.")]
Requests = Annotated[
    str | None, typer.Option(help="Most requests a minute, or `none` for no limit.")
]
Tokens = Annotated[
    str | None, typer.Option(help="Most tokens a minute, prompts and answers, or `none`.")
]
Streams = Annotated[
    str | None, typer.Option(help="Most requests answered at the same time, or `none`.")
]
Fallback = Annotated[
    str | None,
    typer.Option(help="What may answer if a prefix cannot be had: none, base or tenant/prefix."),
]
Note = Annotated[str, typer.Option(help="One line for people.")]
