"""Who gets in: decided on the bytes of the request line and one header, and on nothing else."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.serving.gateway.edge import PRINCIPAL, REQUEST_ID, EdgeSettings, edge
from foreword.serving.gateway.edge.paths import is_plain
from foreword.serving.gateway.edge.types import Message, Scope
from tests.gateway.edge_server import KEY, Answer, Little, believe, served

NAMED = ("/v1/models/",)
GOOD = (b"authorization", f"Bearer {KEY}".encode())


def scope(
    method: str = "GET", raw: bytes = b"/v1/echo", *headers: tuple[bytes, bytes], path: str = ""
) -> Scope:
    return {"type": "http", "method": method, "raw_path": raw, "headers": list(headers),
            "path": path or raw.decode("latin-1"), "query_string": b""}  # fmt: skip


def ask(asked: Scope, little: Little | None = None, **settings: Any) -> Answer:
    """Without a server: what the edge answers to a scope."""
    sent: list[Message] = []

    async def receive() -> Message:
        if receive_count.pop():
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.sleep(60)
        raise RuntimeError("nobody waits that long")

    async def send(message: Message) -> None:
        sent.append(message)

    receive_count = [False, True]
    guarded = edge(little or Little(), EdgeSettings(**settings), believe)
    asyncio.run(guarded(asked, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], headers, b"".join(m["body"] for m in sent[1:]))


@pytest.mark.parametrize(
    "path",
    ["/", "/v1/models", "/v1/chat/completions", "/v1/models/base", "/v1/models/acme/support@1.2.0",
     "/v1/models/sha256:" + "a" * 64, "/a-b_c~d.e"],
)  # fmt: skip
def test_plain_paths(path: str) -> None:
    assert is_plain(path.encode(), path, NAMED)


@pytest.mark.parametrize("raw", [b"/v1/models/acme%2Fsupport%401.2.0", b"/v1/models/a%3aB"])
def test_names_of_models_may_be_written_as_clients_write_them(raw: bytes) -> None:
    path = raw.decode().replace("%2F", "/").replace("%40", "@").replace("%3a", ":")
    assert is_plain(raw, path, NAMED)
    assert not is_plain(raw, path, ())


@pytest.mark.parametrize(
    "raw",
    [b"", b"v1", b"*", b"//", b"//livez", b"/livez/", b"/v1//echo", b"/./livez", b"/livez/.",
     b"/v1/../livez", b"/livez/..", b"/v1/..;/echo", b"/livez;a=b", b"/livez%00", b"/livez%20",
     b"/%6civez", b"/livez%2f", b"/livez%2F..%2Fv1", b"/livez\\..\\v1", b"/livez%5c", b"/livez#x",
     b"/livez?x", b"/livez\x00", b"/livez\n", b"/livez ", b"/liv\xc3\xa9z", b"http://here/livez",
     b"here:80", b"/v1/models/..%2flivez", b"/v1/models/a%2f%2fb", b"/v1/models/%2e%2e/x",
     b"/v1/models/a%252fb", b"/v1/models/%2f", b"/a" * 17, b"/" + b"a" * 300],
)  # fmt: skip
def test_paths_that_are_not_plain(raw: bytes) -> None:
    for path in (raw.decode("latin-1"), raw.decode("latin-1").replace("%2f", "/")):
        assert not is_plain(raw, path, NAMED)


@given(st.text(alphabet="/.%2fF5cCeE;\\az\x00~:@é", max_size=40))
def test_what_is_plain_has_one_reading(text: str) -> None:
    raw = text.encode("latin-1")
    if is_plain(raw, text, ()):
        assert re.fullmatch(r"/|(/[^/%;\\\x00]+)+", text)
        assert not {".", ".."} & set(text.split("/"))


@given(st.sampled_from(["/livez", "/v1/echo", "/v1/models/x"]), st.text(max_size=20))
def test_what_the_server_decoded_otherwise_is_not_plain(raw: str, path: str) -> None:
    assert is_plain(raw.encode(), path, NAMED) == (raw == path)


@pytest.mark.parametrize(
    "raw", [b"/v1/echo", b"/", b"/nowhere", b"/readyz", b"/livez.json", b"/Livez"]
)
def test_everything_else_than_an_open_door_needs_a_key(raw: bytes) -> None:
    little = Little()
    told = ask(scope("GET", raw), little)
    assert (told.status, told.code) == (401, "auth.missing")
    assert told.headers["www-authenticate"] == "Bearer"
    assert not little.scopes


def test_an_open_door_is_what_the_settings_say() -> None:
    assert ask(scope("GET", b"/livez")).json["tenant"] is None
    assert ask(scope("GET", b"/livez"), open=()).status == 401
    assert ask(scope("GET", b"/readyz"), open=("/livez", "/readyz")).status == 200


def test_a_key_is_turned_into_a_principal_and_not_passed_on() -> None:
    little = Little()
    assert ask(scope("GET", b"/v1/echo", GOOD, (b"x-a", b"b")), little).json["tenant"] == "acme"
    seen = little.scopes[0]
    assert seen[PRINCIPAL].tenant == "acme"
    assert seen["headers"] == [(b"x-a", b"b")]
    assert KEY not in repr(seen)


def test_a_principal_in_the_scope_is_overwritten_or_absent() -> None:
    assert ask({**scope(), PRINCIPAL: "forged"}).status == 401
    little = Little()
    ask({**scope("GET", b"/livez"), PRINCIPAL: "forged"}, little)
    assert PRINCIPAL not in little.scopes[0]


def test_two_keys_are_refused_whichever_is_good() -> None:
    bad = (b"authorization", b"Bearer nothing")
    for pair in ((GOOD, bad), (bad, GOOD), (GOOD, GOOD)):
        assert ask(scope("GET", b"/v1/echo", *pair)).code == "request.authorization"


@pytest.mark.parametrize(
    "name",
    [b"host", b"forwarded", b"x-forwarded-for", b"x-forwarded-prefix", b"x-original-url",
     b"x-rewrite-url", b"x-http-method-override", b"x-method-override", b"x-real-ip"],
)  # fmt: skip
def test_headers_that_lead_astray_never_reach_the_application(name: bytes) -> None:
    little = Little()
    assert ask(scope("GET", b"/v1/echo", (name, b"/livez"))).status == 401
    assert ask(scope("GET", b"/v1/echo", GOOD, (name, b"DELETE")), little).json["method"] == "GET"
    assert name not in dict(little.scopes[0]["headers"])


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "DELETE", "get", "FOO"])
def test_no_method_needs_no_key(method: str) -> None:
    assert ask(scope(method, b"/v1/echo")).status == 401
    assert ask(scope(method, b"/v1/echo", GOOD)).json["method"] == method


def test_a_head_is_a_get_without_a_body() -> None:
    with served(Little()) as running:
        full, bare = running.ask("GET /livez"), running.ask("HEAD /livez")
    assert (bare.status, bare.body) == (200, b"")
    assert bare.headers["content-length"] == full.headers["content-length"]


def test_a_websocket_is_closed() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    little = Little()
    guarded = edge(little, EdgeSettings(), believe)
    asyncio.run(guarded({**scope("GET", b"/livez", GOOD), "type": "websocket"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert not little.scopes


def test_every_answer_has_its_own_id_and_says_what_browsers_need() -> None:
    given_id = (b"x-request-id", b"theirs-1")
    told = [ask(scope("GET", raw, given_id)) for raw in (b"/livez", b"/v1/echo", b"//", b"/livez")]
    assert len({answer.headers["x-request-id"] for answer in told}) == len(told)
    for answer in told:
        assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
        assert answer.headers["x-client-request-id"] == "theirs-1"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "ids", [[b""], [b"a\x1b[31m"], [b"a b"], [b"\xe9"], [b"a" * 65], [b"a", b"b"], [b"<script>"]]
)
def test_an_id_that_could_do_harm_is_not_echoed(ids: list[bytes]) -> None:
    told = ask(scope("GET", b"/livez", *((b"x-request-id", theirs) for theirs in ids)))
    assert "x-client-request-id" not in told.headers


def test_the_application_gets_the_id_of_the_answer() -> None:
    little = Little()
    told = ask(scope("GET", b"/livez"), little)
    assert little.scopes[0][REQUEST_ID] == told.headers["x-request-id"]


def test_a_broken_handler_is_logged_without_what_it_says(caplog: pytest.LogCaptureFixture) -> None:
    told = ask(scope("GET", b"/v1/break", GOOD))
    assert told.status == 500
    assert KEY.encode() not in told.body
    logged = caplog.records[-1].getMessage()
    assert told.headers["x-request-id"] in logged
    assert "ValueError" in logged
    assert "edge_server.py" in logged
    assert KEY not in caplog.text
