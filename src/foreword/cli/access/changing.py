"""One change of the access table, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.cli.registry.changing import by
from foreword.errors import UsageError

if TYPE_CHECKING:
    from foreword.serving.gateway.access.table import AccessTable
    from foreword.serving.gateway.access.tenants import Limits


def table(directory: Path | None) -> AccessTable:
    from foreword.serving.gateway.access.store import AccessStore

    return AccessStore(directory).table()


def change(
    directory: Path | None,
    fn: Callable[[AccessTable], AccessTable],
    actor: str | None,
    reason: str = "",
) -> AccessTable:
    """Apply a change in the name of whoever uses this machine; servers see it within a second."""
    from foreword.serving.gateway.access.store import AccessStore

    return AccessStore(directory).change(fn, by(actor, reason))


def limits(known: Limits, requests: str | None, tokens: str | None, streams: str | None) -> Limits:
    """The limits with those changed that were given."""
    from dataclasses import replace

    given = {"requests": requests, "tokens": tokens, "streams": streams}
    return replace(known, **{
        name: _count(name, text) for name, text in given.items() if text is not None
    })  # fmt: skip


def _count(name: str, text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 13):
        raise UsageError(
            f"--{name} is a whole number or `none`, got {text[:40]!r}", code="access.value"
        )
    return int(text)
