"""The connection: deadlines, limits and ends, over real sockets. Times in seconds."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from foreword.serving.gateway.edge import EdgeSettings
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

QUICK = EdgeSettings(header_seconds=0.4, idle_seconds=0.4, body_seconds=0.4, stall_seconds=0.4)
NEAR = 1.5
"""Nothing that should take 0.4 s may take longer than that here."""


@pytest.fixture(scope="module")
def little() -> Little:
    return Little()


@pytest.fixture(scope="module")
def quick(little: Little) -> Iterator[Served]:
    with served(little, QUICK) as running:
        yield running


def reset(sock: socket.socket) -> None:
    """End a connection with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_a_head_that_never_ends_is_refused_in_time(quick: Served) -> None:
    with quick.connect() as sock:
        began = time.monotonic()
        sock.sendall(b"GET /v1/echo HTTP/1.1\r\nHost: here\r\nX-A")
        late = answer(sock)
        assert 0.3 < time.monotonic() - began < NEAR
        assert (late.status, late.code) == (408, "request.slow_headers")
        assert late.headers["connection"] == "close"
        closed_after(sock)


@pytest.mark.parametrize("piece", [b"X-A: b\r\n", b"\r\n"], ids=["headers", "line breaks"])
def test_a_trickle_does_not_put_the_deadline_off(quick: Served, piece: bytes) -> None:
    with quick.connect() as sock:
        if piece != b"\r\n":
            sock.sendall(b"GET /v1/echo HTTP/1.1\r\n")
        # A second longer: after the refusal the server takes for a moment what still comes.
        assert sending_ends_after(sock, piece, 0.05, 10) < NEAR + 1.0


def test_a_connection_that_says_nothing_is_closed(quick: Served) -> None:
    with quick.connect() as sock:
        assert closed_after(sock) < NEAR


def test_the_second_request_of_a_connection_has_a_deadline_too(quick: Served) -> None:
    with quick.connect() as sock:
        sock.sendall(request("GET /v1/echo", AUTHORIZED))
        assert answer(sock).status == 200
        sock.sendall(b"GET /v1/ec")
        assert answer(sock).code == "request.slow_headers"


def test_after_an_answer_a_lone_line_break_does_not_hold_the_connection(quick: Served) -> None:
    with quick.connect() as sock:
        sock.sendall(request("GET /v1/echo", AUTHORIZED))
        assert answer(sock).status == 200
        sock.sendall(b"\r\n")
        assert closed_after(sock) < NEAR + 1.0


def test_a_slow_head_in_time_is_answered(quick: Served) -> None:
    with quick.connect() as sock:
        whole = request("GET /v1/echo", AUTHORIZED)
        for at in range(0, len(whole), 20):
            sock.sendall(whole[at : at + 20])
            time.sleep(0.01)
        assert answer(sock).status == 200


@pytest.mark.parametrize(
    "headers",
    [["X-Big: " + "b" * 17_000], [f"X-{i}: {'b' * 300}" for i in range(90)],
     [f"X-{i}: b" for i in range(120)]],
    ids=["one large", "large together", "many"],
)  # fmt: skip
def test_a_head_that_comes_at_once_is_limited_like_a_slow_one(
    quick: Served, little: Little, headers: list[str]
) -> None:
    calls = len(little.scopes)
    told = quick.ask("GET /v1/echo", AUTHORIZED, *headers)
    assert (told.status, told.code) == (431, "request.headers_too_large")
    assert len(little.scopes) == calls


def test_a_hundred_headers_are_not_too_many(quick: Served) -> None:
    more = [f"X-{i}: b" for i in range(98)]
    assert quick.ask("GET /v1/echo", AUTHORIZED, *more).status == 200
    assert quick.ask("GET /v1/echo", AUTHORIZED, *more, "X-One: more").status == 431


@pytest.mark.parametrize(
    "sent",
    [f"{KEY}\r\n\r\n", f"GET /{KEY} HTTP/9\r\n\r\n", f"GET / HTTP/1.1\r\n{KEY}\r\n\r\n",
     f"GET / HTTP/1.1\r\nHost: here\r\nContent-Length: {KEY}\r\n\r\n",
     "GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
     "GET /\x00 HTTP/1.1\r\nHost: here\r\n\r\n", "GET /\xe9 HTTP/1.1\r\nHost: here\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_request_is_refused_and_not_quoted(quick: Served, sent: str) -> None:
    with quick.connect() as sock:
        sock.sendall(sent.encode("latin-1"))
        told = answer(sock)
        assert (told.status, told.code) == (400, "request.http")
        assert KEY.encode() not in told.body


def test_chunks_that_break_off_into_nonsense_are_refused(quick: Served, little: Little) -> None:
    calls = len(little.scopes)
    with quick.connect() as sock:
        sock.sendall(request("POST /v1/echo", AUTHORIZED, JSON, "Transfer-Encoding: chunked"))
        sock.sendall(b"3\r\nabc\r\nnonsense\r\n")
        assert answer(sock).code == "request.http"
    assert len(little.scopes) == calls


def test_one_connection_too_many_is_told_so_at_once() -> None:
    with served(Little(), EdgeSettings(connections=3)) as running:
        kept = [running.connect() for _ in range(3)]
        until(lambda: running.connections == 3)
        with running.connect() as sock:
            began = time.monotonic()
            told = answer(sock)
            assert time.monotonic() - began < 0.5
        assert (told.status, told.code) == (503, "serving.connections")
        assert int(told.headers["retry-after"]) >= 1
        for sock in kept:
            sock.sendall(request("GET /livez"))
            assert answer(sock).status == 200
            sock.close()
        until(lambda: running.connections == 0)
        assert running.ask("GET /livez").status == 200


def test_a_flood_of_connections_is_not_even_told() -> None:
    with served(Little(), EdgeSettings(connections=10)) as running:
        flood = []
        for _ in range(60):
            with contextlib.suppress(ConnectionResetError):  # sooner than the client knew of it
                flood.append(running.connect())
        time.sleep(0.2)
        assert running.connections <= 12
        assert len(flood) >= 10, "as many as may be open are taken"
        for sock in flood:
            sock.close()


def test_who_does_not_read_is_felt_and_cut_off() -> None:
    little = Little()
    with served(little, QUICK) as running, running.connect(buffer=4_096) as sock:
        sock.sendall(request("GET /v1/stream", AUTHORIZED))
        began = time.monotonic()
        until(lambda: little.cancelled == 1)
        assert 0.3 < time.monotonic() - began < NEAR
        # Our buffer, one piece over it, the kernel's two buffers.
        assert little.sent < 4 * QUICK.write_buffer
        until(lambda: running.connections == 0)


def test_who_reads_slowly_but_enough_is_kept() -> None:
    little = Little()
    with served(little, QUICK) as running, running.connect(buffer=65_536) as sock:
        sock.sendall(request("GET /v1/stream", AUTHORIZED))
        end = time.monotonic() + 4 * QUICK.stall_seconds
        while time.monotonic() < end:
            assert sock.recv(30_000)
            time.sleep(0.04)
        assert little.cancelled == 0


def test_a_whole_answer_that_nobody_reads_does_not_hold_the_connection() -> None:
    with served(Little(), QUICK) as running, running.connect(buffer=4_096) as sock:
        sock.sendall(request("GET /v1/large", AUTHORIZED))
        time.sleep(0.1)
        assert running.connections == 1
        until(lambda: running.connections == 0, 4 * NEAR)


def test_who_was_refused_while_sending_can_read_why(quick: Served) -> None:
    for _ in range(5):
        told = quick.ask("POST /v1/echo", AUTHORIZED, JSON, body=b" " * 3_000_000)
        assert (told.status, told.code) == (413, "request.too_large")


def test_a_body_that_nobody_wants_cannot_go_on_for_ever(quick: Served) -> None:
    with quick.connect() as sock:
        sock.sendall(request("POST /v1/echo", JSON, "Content-Length: 1000000"))
        assert answer(sock).status == 401
        assert sending_ends_after(sock, b" ", 0.05, 10) < NEAR + 1.0
    until(lambda: quick.connections == 0)


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["FIN", "RST"])
def test_a_request_whose_client_went_away_is_cancelled(leave: object) -> None:
    little = Little()
    with served(little) as running:
        sock = running.connect()
        sock.sendall(request("GET /v1/hang", AUTHORIZED))
        until(lambda: len(little.scopes) == 1)
        assert callable(leave)
        leave(sock)
        until(lambda: little.cancelled == 1, 0.5)
        assert running.edge.gate.inside == 0
        assert not running.edge.overload.inside


def test_requests_that_were_sent_ahead_are_answered_in_order(quick: Served) -> None:
    with quick.connect() as sock:
        sent = b"".join(
            request("POST /v1/echo", AUTHORIZED, JSON, body=b"%d" % i) for i in range(5)
        )
        sock.sendall(sent)
        assert [answer(sock).json["got"] for _ in range(5)] == ["0", "1", "2", "3", "4"]


def test_nobody_is_upgraded_to_another_protocol(quick: Served) -> None:
    told = quick.ask("GET /v1/echo", "Connection: Upgrade", "Upgrade: websocket",
                     "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")  # fmt: skip
    assert told.status == 401


def test_stopping_ends_idle_and_refused_connections() -> None:
    with served(Little()) as running, running.connect() as idle, running.connect() as refused:
        refused.sendall(b"nonsense\r\n\r\n")
        assert answer(refused).status == 400
        idle.sendall(request("GET /livez"))
        assert answer(idle).status == 200
        running.server.should_exit = True
        assert closed_after(idle) < NEAR


def test_whoever_is_turned_away_is_counted_wherever_it_happened() -> None:
    with served(Little(), QUICK) as running:
        running.ask("GET /v1/echo")
        running.ask("GET //", AUTHORIZED)
        running.ask("GET /v1/echo", AUTHORIZED, "X-Big: " + "b" * 20_000)
        running.ask("GET /v1/break", AUTHORIZED)
        running.ask("GET /v1/echo", AUTHORIZED)
        until(lambda: len(running.refused) == 4)
        statuses = [status for _, status in running.refused]
        assert statuses == [401, 404, 431, 500]
        assert running.refused[0][0] == "auth.missing"
