"""Every request needs a key, unless the bytes of its path are those of an open door.

This is decided on what came over the wire, before any router has read it: a route that somebody adds
needs a key because nothing was done about it, and no header decides which door a request is at.
"""

from __future__ import annotations

from dataclasses import dataclass

from foreword.serving.gateway.edge import refusals
from foreword.serving.gateway.edge.paths import is_plain
from foreword.serving.gateway.edge.settings import EdgeSettings
from foreword.serving.gateway.edge.types import App, Believe, Headers, Receive, Scope, Send, all_of

PRINCIPAL = "foreword.principal"
"""Key of the scope: the `Principal` of every request that is not at an open door."""

_WITHHELD = frozenset(
    {b"authorization", b"host", b"forwarded", b"via"}
    | {b"x-http-method", b"x-http-method-override", b"x-method-override"}
    | {b"x-original-url", b"x-rewrite-url", b"x-original-host", b"x-real-ip", b"x-host"}
)


@dataclass(frozen=True)
class Doors:
    """`app` for requests at a plain path with a believed key; `lobby` for those at an open door."""

    app: App
    lobby: App
    believe: Believe
    settings: EdgeSettings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Raises:
            UsageError: the path is not plain, or there are several keys.
            AuthError: `believe` does not know the key, or there is none.
        """
        if not is_plain(scope["raw_path"], scope["path"], self.settings.named):
            raise refusals.path()
        if scope["raw_path"].decode("ascii") in self.settings.open:
            await self.lobby(_inner(scope), receive, send)
        else:
            principal = self.believe(_authorization(scope["headers"]))
            await self.app({**_inner(scope), PRINCIPAL: principal}, receive, send)


def _authorization(headers: Headers) -> str | None:
    given = all_of(headers, b"authorization")
    if len(given) > 1:
        raise refusals.authorization()
    return given[0].decode("latin-1") if given else None


def _inner(scope: Scope) -> Scope:
    """The scope as the application gets it: no secret to log, no header to be led astray by.

    A HEAD is asked of the application as a GET; the server leaves the body out (RFC 9110, 9.3.2).
    """
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    headers = [(name, value) for name, value in scope["headers"] if not _withheld(name)]
    given = {key: value for key, value in scope.items() if key != PRINCIPAL}
    return {**given, "method": method, "headers": headers}


def _withheld(name: bytes) -> bool:
    return name in _WITHHELD or name.startswith(b"x-forwarded")
