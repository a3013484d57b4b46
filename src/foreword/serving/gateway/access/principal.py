"""Who a request comes from, once its key or token was believed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Scope = Literal["generate", "models", "admin"]


@dataclass(frozen=True)
class Principal:
    """A tenant, and the key that speaks for it. Nothing here is a secret."""

    tenant: str
    key_id: str
    """Public part of the key, 16 hexadecimal digits; for a token `jwt:` and its subject, hashed."""
    scopes: frozenset[Scope]
    only: tuple[str, ...] | None = None
    """Names of prefixes this key is limited to; None: all its tenant may use."""
    expires: datetime | None = None
