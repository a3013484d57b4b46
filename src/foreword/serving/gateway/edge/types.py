"""The words of ASGI, as far as the edge speaks them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from foreword.serving.gateway.access.principal import Principal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, in the order in which they came."""
Believe = Callable[[str | None], Principal]
"""Who an `Authorization` header speaks for; raises an `AuthError` if for nobody."""
Refused = Callable[[str, int], None]
"""Hears of every request that the edge turned away: code and status. It must not raise."""


def all_of(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]
