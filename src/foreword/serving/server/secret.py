"""What a gateway and an engine in two processes both know: from a file, or from the environment."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from foreword.config import foreword_home
from foreword.errors import ArtifactError, ConfigError, StorageError
from foreword.serving.server.settings import ServeSettings, is_loopback
from foreword.serving.upstream.secret import Secret
from foreword.signing import files

VARIABLE = "FOREWORD_ENGINE_SECRET"
_MOST = 1_000
"""Bytes of the file."""
_HOW = f"name a file with --secret-file, or set {VARIABLE}; `openssl rand -hex 32` makes a good one"


def secret_of(settings: ServeSettings) -> Secret:
    """The secret that was given. Two that meet on this machine need none: they take a file in
    FOREWORD_HOME, which the first of them makes.

    Raises:
        ConfigError: there is none (`serve.secret`), or it is too short (`engine.secret`).
        StorageError: the file cannot be read or made.
    """
    if settings.engine.secret_file is not None:
        return Secret(_read(settings.engine.secret_file))
    if given := os.environ.get(VARIABLE):
        return Secret(given)
    own = foreword_home() / "serve" / "engine.secret"
    if not own.exists():
        _make(own, _other_end(settings))
    return Secret(_read(own))


def _other_end(settings: ServeSettings) -> str:
    """The host on which the two meet."""
    if settings.role == "engine":
        return settings.host
    return urlsplit(settings.engine.url).hostname or ""


def _make(path: Path, host: str) -> None:
    if not is_loopback(host):
        raise ConfigError(
            f"a gateway and an engine that meet at {host[:80]!r} need a secret that was given to both: "
            f"{_HOW}",
            code="serve.secret",
        )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    files.create(path, secrets.token_hex(32).encode(), 0o600)


def _read(path: Path) -> str:
    try:
        return files.read(path, _MOST).decode("ascii", errors="replace").strip()
    except (ArtifactError, StorageError) as e:
        raise ConfigError(
            f"the secret between gateway and engine cannot be read ({e}): {_HOW}",
            code="serve.secret",
        ) from e
