"""Files and directories on this machine: nobody else may write to them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from foreword.registry.database import Database
from foreword.registry.fsck.finding import Finding, doubtful
from foreword.registry.layout import FILE, Layout


def modes(layout: Layout, database: Database) -> Iterator[Finding]:
    """Where everybody may write, everybody can take the registry's place."""
    places = [layout.directory, layout.directory / FILE]
    if database.is_sqlite:
        places += [database.path.parent, database.path]
    for path in dict.fromkeys(places):
        if _is_open(path):
            yield doubtful(
                "mode", str(path), "everybody on this machine may write to it", "chmod o-w it"
            )


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False  # whether it can be read is asked elsewhere
