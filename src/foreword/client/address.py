"""Where a server is, and the key it wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from foreword.errors import ServingError, UsageError


@dataclass(frozen=True)
class Address:
    url: str
    """`http://HOST:PORT`, without `/v1`."""
    key: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


def address(url: str, key: str = "") -> Address:
    """An address as people write it, with or without `/v1`.

    Raises:
        UsageError: it is none (`client.url`), or the key cannot be sent (`client.key`).
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"expected an address such as http://127.0.0.1:8000, got {url[:80]!r}",
            code="client.url",
        )
    if not key.isascii() or not key.isprintable():
        raise UsageError("a key is one line of printable ASCII characters", code="client.key")
    return Address(url.rstrip("/").removesuffix("/v1"), key)


def unreachable(where: str, error: Exception, hint: str) -> ServingError:
    """Nothing answers; `hint` says what to do."""
    return ServingError(
        f"nothing answers at {where} ({type(error).__name__}); {hint}", code="client.unreachable"
    )
