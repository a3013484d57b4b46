"""One change of a registry, from who asks for it to what is said about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.cli.output import print_json
from foreword.cli.registry.lines import line

if TYPE_CHECKING:
    from foreword.registry.entries import By, Entry
    from foreword.registry.registry import Registry


def by(actor: str | None, reason: str = "") -> By:
    """Whoever uses this machine, now, unless another name is given.

    Raises:
        UsageError: actor or reason is not one printable line.
    """
    from datetime import UTC, datetime

    from foreword.registry.entries import By

    return By(actor or _somebody(), datetime.now(UTC), reason)


def change(directory: Path | None, act: Callable[[Registry], Entry], *, json: bool = False) -> None:
    """Do one thing in a registry and say what happened, also if it had happened before."""
    from foreword.cli.registry.shown import change_json
    from foreword.cli.registry.told import happened, next_step
    from foreword.registry.registry import Registry

    with Registry.open(directory) as registry:
        before = registry.refresh().head
        entry = act(registry)
        state = registry.state
    new = entry.seq > before.seq
    if json:
        print_json(change_json(entry, state, new))
        return
    known = "" if new else f" (nothing new: {entry.actor} did this at {entry.time})"
    line(f"entry {entry.seq}", happened(entry.event, state) + known)
    line("next", next_step(entry.event, state))


def _somebody() -> str:
    """USER@HOST; a container may know no name for its user."""
    import getpass
    import os
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
