"""What a gateway and an engine in two processes know, and nobody else."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from foreword.errors import ConfigError

LEAST = 16
"""Characters."""


class Secret:
    """Compared in constant time; never shown.

    Raises:
        ConfigError: it is too short, or not of printable ASCII characters (`engine.secret`).
    """

    def __init__(self, text: str) -> None:
        if len(text) < LEAST or not text.isascii() or not text.isprintable():
            raise ConfigError(
                f"the secret between gateway and engine has at least {LEAST} printable ASCII "
                f"characters, got {len(text)}; take what `openssl rand -hex 32` says",
                code="engine.secret",
            )
        self._header = f"Bearer {text}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": self._header}

    def opens(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the headers of a request have it, once."""
        given = [value for name, value in headers if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._header.encode())
