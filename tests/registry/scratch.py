"""Where tests keep what no power cut will hit: in memory, if the system has a place for that."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards; syncing a file in it takes no time."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as place:
        yield Path(place)
