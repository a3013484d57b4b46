"""Requests without a key that try to look like one that needs none, and doors that fall for them."""

from __future__ import annotations

import json
import posixpath
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from foreword.serving.gateway.edge.types import App, Receive, Scope, Send
from tests.gateway.edge_server import say

OPEN = "/livez"
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "get", "LIVEZ")

_BEFORE = (
    "/", "//", "/.", "/./", "/..", "/../", "/livez/..", "/livez/../", "/livez;/..", "/livez%2f..",
    "/livez%2F%2E%2E", "/livez/%2e%2e", "/livez\\..", "/livez%5c..", "/livez/..;", "/livez/.%2e",
    "/livez//..", "/livez/./..", "/livez%252f..", "/%2e%2e", "/%2f", "/;", "/livez%00", "/livez?/..",
    "/livez#/..", "http://livez", "http://127.0.0.1/livez/..", "http://here", "livez", "/%c0%ae%c0%ae",
)  # fmt: skip
"""Put before the path that is wanted."""
_AFTER = (
    "", "/", "//", "/.", "/..", "/../livez", "/..;/livez", ";/livez", ";livez", ";.livez", "%00",
    "%00/livez", "%2f..%2flivez", "%2flivez", "?/livez", "?x=/livez", "#/livez", "%23/livez",
    "%3f/livez", "\\livez", "%5clivez", ".livez", "%20", "%0a", "%0d%0aX:%20y", ".json", "~", "%ff",
)  # fmt: skip
_HEADERS = (
    "Host: livez", "Host: /livez", "Host: here/livez", "Host: here/livez?", "Host: here/livez#",
    "Host: here@livez", "Host: 127.0.0.1:0/livez/", "Host: ", "X-Forwarded-Host: here/livez",
    "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Prefix: /livez", "X-Forwarded-Path: /livez",
    "X-Forwarded-Uri: /livez", "X-Forwarded-Proto: https", "Forwarded: for=127.0.0.1;host=livez",
    "X-Original-URL: /livez", "X-Rewrite-URL: /livez", "X-Original-Uri: /livez", "X-Real-IP: 127.0.0.1",
    "X-HTTP-Method-Override: GET", "X-Method-Override: OPTIONS", "X-HTTP-Method: HEAD", "Via: 1.1 livez",
    "Referer: http://127.0.0.1/livez", "Origin: http://127.0.0.1", "Connection: Authorization",
    "Connection: close, X-Key", "Upgrade: websocket", "Authorization: ", "Authorization: Bearer ",
    "Authorization: Bearer null", "Authorization: Basic bGl2ZXo6", "Authorization: Bearer *",
    "Cookie: key=livez", "X-Api-Key: livez", "Api-Key: livez", "X-Foreword-Principal: acme",
    "X-Foreword-User: admin", "Proxy-Authorization: Bearer x", "Content-Type: application/json",
)  # fmt: skip
"""Each alone beside an ordinary path, and at random beside the others."""


@dataclass(frozen=True)
class Way:
    method: str
    target: str
    headers: tuple[str, ...]

    def request(self) -> bytes:
        named = any(header.startswith("Host:") for header in self.headers)
        lines = [f"{self.method} {self.target} HTTP/1.1", *([] if named else ["Host: here"])]
        return "\r\n".join([*lines, *self.headers, "Connection: close", "", ""]).encode("latin-1")


def ways(paths: Sequence[str], count: int, seed: int = 22) -> list[Way]:
    """`count` different ones: every trick by itself, then some together."""
    found: dict[Way, None] = {}
    for way in _ways(paths, random.Random(seed)):
        if way.target != OPEN:
            found[way] = None
        if len(found) == count:
            break
    return list(found)


def _ways(paths: Sequence[str], rng: random.Random) -> Iterator[Way]:
    for path in paths:
        for method in METHODS:
            yield Way(method, path, ())
    for header in _HEADERS:
        yield Way("POST", rng.choice(paths), (header,))
    for before in _BEFORE:
        yield Way("GET", before + rng.choice(paths), ())
    for after in _AFTER:
        yield Way("GET", rng.choice(paths) + after, ())
        yield Way("GET", OPEN + after, ())
    while True:
        path = rng.choice(["", *_BEFORE]) + _escaped(rng.choice(paths), rng) + rng.choice(_AFTER)
        headers = rng.sample(_HEADERS, rng.randint(0, 3))
        yield Way(rng.choice(METHODS), path or OPEN, tuple(headers))


def _escaped(path: str, rng: random.Random) -> str:
    """The same path, some of its characters written otherwise."""
    if rng.random() < 0.5:
        return path
    place = rng.randrange(len(path))
    written = rng.choice(
        [f"%{ord(path[place]):02x}", f"%25{ord(path[place]):02x}", path[place].upper()]
    )
    return path[:place] + written + path[place + 1 :]


def misplaced(*keys: str) -> Iterator[tuple[str, tuple[str, ...], bytes]]:
    """Requests with a key where it belongs, and where people put it by mistake: head, headers, body."""
    json_ = "Content-Type: application/json"
    for key in keys:
        bearer = f"Authorization: Bearer {key}"
        said = [{"role": "user", "content": "0001 "}]
        whole = {"model": "base", "messages": said, "max_tokens": 1}
        yield "POST /v1/chat/completions", (bearer, json_), json.dumps(whole).encode()
        yield (
            "POST /v1/chat/completions",
            (bearer, json_),
            json.dumps({**whole, "user": key}).encode(),
        )
        yield "POST /v1/chat/completions", (bearer, json_), json.dumps({**whole, "n": key}).encode()
        yield "POST /v1/chat/completions", (bearer, json_), b'{"api_key": ' + key.encode()
        yield "GET /v1/models", (bearer, bearer), b""
        yield "GET /v1/models", (f"Authorization: {key}",), b""
        yield "GET /v1/models", (f"Authorization: Basic {key}",), b""
        yield "GET /v1/models", (f"Authorization: Bearer {key} {key}",), b""
        yield "GET /v1/models", (f"Authorization: Bearer x{key}",), b""
        yield "GET /v1/models", (f"X-Api-Key: {key}", f"Cookie: key={key}"), b""
        yield "GET /v1/models", (f"X-Foreword-User: {key}", f"traceparent: {key}", bearer), b""
        yield f"GET /v1/models?api_key={key}", (), b""
        yield f"GET /{key}", (), b""
        yield f"GET /{key}", (bearer,), b""
        yield f"GET /v1/models/{key}/..", (bearer,), b""
        yield f"{key} /v1/models", (bearer,), b""


@dataclass
class Rooms:
    """What lies behind the doors, read as generously as any router reads a path; it counts who comes."""

    reached: int = 0
    """Requests that came to a room for which a key is needed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.reached += any(path.startswith("/v1/") for path in _readings(scope["path"]))
            await say(send, {"here": "is what nobody should see"})


@dataclass(frozen=True)
class Naive:
    """Doors as they are often built: they look at the path, but read it otherwise than the router.

    `reading` is a mistake of section 1 of the test plan: a beginning that is open, a path put in order
    first, a URL put together with the Host header, a method that needs no key.
    """

    app: App
    reading: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_open(scope):
            await self.app(scope, receive, send)
        else:
            await say(send, {"error": "no key"}, 401)

    def _is_open(self, scope: Scope) -> bool:
        path: str = scope["path"]
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        match self.reading:
            case "beginning":
                return path.startswith(OPEN)
            case "order":
                return posixpath.normpath(path).endswith(OPEN)
            case "host":
                return urlsplit(f"http://{headers.get(b'host', '')}{path}").path == OPEN
            case "method":
                override = headers.get(b"x-http-method-override", scope["method"])
                return override in ("OPTIONS", "HEAD")
            case _:
                return headers.get(b"x-original-url", path) == OPEN


READINGS = ("beginning", "order", "host", "method", "original url")


def _readings(path: str) -> set[str]:
    """Everything that somebody may take a path for."""
    plain = unquote(path).replace("\\", "/")
    bare = "/".join(segment.split(";")[0] for segment in plain.split("/"))
    return {path, plain, posixpath.normpath(plain), posixpath.normpath(bare).replace("//", "/")}
