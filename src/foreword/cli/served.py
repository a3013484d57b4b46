"""Options of commands that talk to a server, and what they mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.errors import UsageError

if TYPE_CHECKING:
    from foreword.client.address import Address

HERE = "http://127.0.0.1:8000"
_MOST_KEY = 1_000

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="FOREWORD_URL", help=f"Address of a server, by default {HERE}."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help="File with a key, by default the key in FOREWORD_API_KEY."),
]


def server_address(url: str | None, key_file: Path | None) -> Address:
    """
    Raises:
        UsageError: it is no address, or the file holds no key.
        StorageError: the file cannot be read.
    """
    from foreword.client.address import address

    key = read_key(key_file) if key_file else os.environ.get("FOREWORD_API_KEY", "").strip()
    return address(url or HERE, key)


def read_key(path: Path, code: str = "client.key") -> str:
    """A key from a file, where other users of the machine do not see it as they see a command."""
    from foreword.signing import files

    text = files.read(path, _MOST_KEY).decode("ascii", errors="replace").strip()
    if not text.isascii() or not text.isprintable() or not text:
        raise UsageError(f"{path} holds no key; expected one line of text", code=code)
    return text
