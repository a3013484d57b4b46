"""Bodies: how large, how slow, of what kind, and how many bytes of them at once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from foreword.serving.gateway.edge import EdgeSettings
from foreword.serving.gateway.edge.body import has_body
from tests.gateway.edge_server import (
    AUTHORIZED,
    JSON,
    KEY,
    Little,
    Served,
    answer,
    closed_after,
    request,
    sending_ends_after,
    served,
    until,
)

MOST = 10_000
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def little() -> Little:
    return Little()


@pytest.fixture(scope="module")
def small(little: Little) -> Iterator[Served]:
    with served(little, EdgeSettings(body_bytes=MOST, body_seconds=0.4)) as running:
        yield running


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [1, MOST - 1, MOST])
def test_a_body_up_to_the_limit_arrives_whole(small: Served, size: int) -> None:
    told = small.ask("POST /v1/echo", AUTHORIZED, JSON, body=b"x" * size)
    assert (told.status, told.json["size"]) == (200, size)
    until(lambda: small.edge.bodies.room.used == 0)


def test_a_body_in_chunks_arrives_in_one_piece(small: Served) -> None:
    with small.connect() as sock:
        sock.sendall(request("POST /v1/echo", AUTHORIZED, JSON, CHUNKED))
        sock.sendall(chunks(b"a", b"b" * 4_999, b"c" * 5_000))
        assert answer(sock).json["size"] == MOST


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(
    small: Served, little: Little
) -> None:
    calls = len(little.scopes)
    with small.connect() as sock:
        sock.sendall(request("POST /v1/echo", AUTHORIZED, JSON, f"Content-Length: {MOST + 1}"))
        told = answer(sock)
        assert (told.status, told.code) == (413, "request.too_large")
        assert told.headers["connection"] == "close"
    assert len(little.scopes) == calls


def test_a_body_that_does_not_say_how_long_it_gets_is_counted(
    small: Served, little: Little
) -> None:
    calls = len(little.scopes)
    with small.connect() as sock:
        sock.sendall(request("POST /v1/echo", AUTHORIZED, JSON, CHUNKED))
        sock.sendall(chunks(b"a" * MOST, b"b"))
        assert answer(sock).code == "request.too_large"
    assert len(little.scopes) == calls
    until(lambda: small.edge.bodies.room.used == 0)


def test_who_sends_for_ever_is_cut_off(small: Served) -> None:
    with small.connect() as sock:
        sock.sendall(request("POST /v1/echo", AUTHORIZED, JSON, CHUNKED))
        assert sending_ends_after(sock, b"2710\r\n" + b"x" * 10_000 + b"\r\n", 0, 10) < 3


def test_more_than_was_announced_is_the_next_request_and_no_good_one(small: Served) -> None:
    with small.connect() as sock:
        sock.sendall(
            request("POST /v1/echo", AUTHORIZED, JSON, "Content-Length: 3") + b"abcSECRET\r\n\r\n"
        )
        assert answer(sock).json["got"] == "abc"
        assert answer(sock).code == "request.http"


@pytest.mark.parametrize("trickle", [False, True], ids=["a part", "a trickle"])
def test_a_body_that_does_not_come_in_time_is_refused(small: Served, trickle: bool) -> None:
    with small.connect() as sock:
        began = time.monotonic()
        sock.sendall(request("POST /v1/echo", AUTHORIZED, JSON, "Content-Length: 5000") + b"{")
        while trickle and time.monotonic() - began < 0.35:
            sock.sendall(b" ")
            time.sleep(0.05)
        told = answer(sock)
        assert 0.3 < time.monotonic() - began < 1.5
        assert (told.status, told.code) == (408, "request.slow_body")
        assert closed_after(sock) < 1.5
    until(lambda: small.edge.gate.inside == 0 and small.edge.bodies.room.used == 0)


def test_who_waits_for_leave_to_send_gets_it_or_the_refusal(small: Served) -> None:
    expecting = "Expect: 100-continue"
    with small.connect() as sock:
        sock.sendall(request("POST /v1/echo", AUTHORIZED, JSON, expecting, "Content-Length: 2"))
        assert sock.recv(1_000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"{}")
        assert answer(sock).json["size"] == 2
    with small.connect() as sock:
        sock.sendall(request("POST /v1/echo", JSON, expecting, "Content-Length: 2"))
        assert answer(sock).status == 401


@pytest.mark.parametrize(
    ("header", "status"),
    [("Content-Type: application/json", 200), ("Content-Type: Application/JSON;charset=UTF-8", 200),
     ('Content-Type: application/json; charset="utf-8"', 200), ("X-None: x", 415),
     ("Content-Type: text/plain", 415), ("Content-Type: application/json; charset=utf-7", 415),
     ("Content-Type: multipart/form-data; boundary=x", 415), ("Content-Type: ", 415),
     ("Content-Type: application/json, text/plain", 415),
     ("Content-Type: application/x-www-form-urlencoded", 415)],
)  # fmt: skip
def test_a_body_is_json_or_refused(small: Served, header: str, status: int) -> None:
    assert small.ask("POST /v1/echo", AUTHORIZED, header, body=b"{}").status == status


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "x"])
def test_an_encoded_body_is_refused_unread(small: Served, encoding: str) -> None:
    told = small.ask("POST /v1/echo", AUTHORIZED, JSON, f"Content-Encoding: {encoding}", body=b"{}")
    assert (told.status, told.code) == (415, "request.encoding")


def test_without_a_body_no_type_is_wanted(small: Served) -> None:
    assert small.ask("POST /v1/echo", AUTHORIZED).json["size"] == 0
    assert small.ask("POST /v1/echo", AUTHORIZED, "Content-Length: 0").json["size"] == 0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [([], False), ([(b"content-length", b"0")], False), ([(b"content-length", b"00")], False),
     ([(b"content-length", b"10")], True), ([(b"transfer-encoding", b"chunked")], True)],
)  # fmt: skip
def test_whether_a_body_is_announced(headers: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert has_body(headers) is expected


def test_bodies_of_all_requests_together_have_a_limit_and_give_it_back() -> None:
    settings = EdgeSettings(bodies_bytes=25_000, body_bytes=10_000)
    with served(Little(), settings) as running:
        slow = [running.connect() for _ in range(2)]
        for sock in slow:
            head = request("POST /v1/echo", AUTHORIZED, JSON, "Content-Length: 10000")
            sock.sendall(head + b" " * 9_999)
        until(lambda: running.edge.bodies.room.used == 19_998)
        told = running.ask("POST /v1/echo", AUTHORIZED, JSON, body=b" " * 6_000)
        assert (told.status, told.code) == (503, "serving.bodies")
        for sock in slow:
            sock.close()
        until(lambda: running.edge.bodies.room.used == 0)
        told = running.ask("POST /v1/echo", f"Authorization: Bearer {KEY}", JSON, body=b" " * 6_000)
        assert told.status == 200
