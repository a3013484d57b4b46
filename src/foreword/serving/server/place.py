"""A directory that belongs to this process while it lives: copies of prefixes, the last known good."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foreword.config import foreword_home
from foreword.errors import ConfigError, StorageError


@contextmanager
def own_place(port: int) -> Iterator[Path]:
    """`FOREWORD_HOME/serve/PORT`: the same after a restart, another one for a second server.

    Raises:
        ConfigError: another process has it (`serve.place`).
        StorageError: it cannot be made.
    """
    directory = foreword_home() / "serve" / str(port)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise StorageError(
            f"{directory} cannot be used ({e.strerror})", code="storage.write"
        ) from e
    try:
        _lock(descriptor, directory)
        yield directory
    finally:
        os.close(descriptor)  # gives the lock back, as a crash does


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise ConfigError(
            f"another server uses {directory}; give this one another --port, or another FOREWORD_HOME",
            code="serve.place",
        ) from e
    except OSError as e:
        raise StorageError(
            f"{directory} cannot be locked ({e.strerror})", code="storage.write"
        ) from e
