"""R22: nothing without a key, whatever a request looks like; nothing listens that was not declared."""

from __future__ import annotations

import socket

import psutil
import pytest
import uvicorn

from tests.gateway.edge_server import Client, answer, running, served, until
from tests.reliability.report import LONG, Goals
from tests.reliability.served import Served
from tests.reliability.ways_in import OPEN, READINGS, Naive, Rooms, Way, misplaced, ways

pytestmark = pytest.mark.reliability("R22")

COUNT = 20_000 if LONG else 2_000
PATHS = ("/v1/models", "/v1/models/base", "/v1/chat/completions", "/v1/completions", "/readyz")
CANARY = "fwk_0123456789abcdef_" + "canary4f1c9a" * 3 + "canary4"
"""Looks like a key and is none."""
REFUSED = {400, 401, 404, 405, 431}


def status(client: Client, way: Way) -> int:
    with client.connect() as sock:
        sock.sendall(way.request())
        return answer(sock, way.method == "HEAD").status


def test_no_way_of_writing_a_request_opens_a_door(goals: Goals) -> None:
    rooms, tried = Rooms(), ways(PATHS, COUNT)
    with served(rooms) as front:
        statuses = [status(front, way) for way in tried]
        bypassed = [
            (way, got)
            for way, got in zip(tried, statuses, strict=True)
            if got not in REFUSED and way.target.partition("?")[0] != OPEN
        ]
    goals.goal("requests without a key that got anything but a refusal", value=len(bypassed),
               passed=not bypassed, count=len(tried))  # fmt: skip
    goals.goal("of them came to what is behind the doors", value=rooms.reached,
               passed=not rooms.reached, count=len(tried))  # fmt: skip


@pytest.mark.parametrize("reading", READINGS)
def test_doors_as_they_are_often_built_are_found_out(goals: Goals, reading: str) -> None:
    rooms, tried = Rooms(), ways(PATHS, 5 * COUNT // 20)
    plain = uvicorn.Config(
        Naive(rooms, reading), port=0, log_config=None, access_log=False, lifespan="off", ws="none"
    )
    with running(plain) as (server, _):
        client = Client(server.servers[0].sockets[0].getsockname()[1])
        for way in tried:
            status(client, way)
    goals.goal(f"ways through doors that go by {reading!r}: found", value=rooms.reached,
               passed=rooms.reached > 0, count=len(tried))  # fmt: skip


def test_nothing_listens_that_was_not_declared(goals: Goals, counting_server: Served) -> None:
    server = counting_server
    process = psutil.Process(server.process.pid)
    declared = {("127.0.0.1", server.port), ("127.0.0.1", server.admin_port)}
    family = [process, *process.children(recursive=True)]
    sockets = [each for one in family for each in one.net_connections(kind="all")]
    listening = {tuple(each.laddr) for each in sockets if each.status == psutil.CONN_LISTEN}
    datagrams = [each for each in sockets if each.type == socket.SOCK_DGRAM and each.laddr]
    goals.goal(f"sockets that listen are the two that were declared {listening ^ declared or ''}",
               value=len(listening), passed=listening == declared and not datagrams,
               count=len(sockets))  # fmt: skip


def test_no_key_is_written_anywhere(goals: Goals, counting_server: Served) -> None:
    """Keys that are believed, and keys in the wrong place; nobody is told them again."""
    server = counting_server
    secrets = [server.key.encode(), server.admin_key.encode(), CANARY.encode()]
    answers = [ask(server, *each) for each in misplaced(server.key, server.admin_key, CANARY)]
    told = [server.ask(f"GET {path}", server.authorized).body for path in ("/metrics", "/readyz")]
    told += [Client(server.admin_port).ask(f"GET {path}").body for path in ("/metrics", "/readyz")]
    log = server.home / "log.jsonl"  # written by a thread of its own, after the answer
    until(lambda: b"request.refused" in log.read_bytes())
    files = written(server)
    quoted = sum(secret in text for secret in secrets for text in answers + told + files)
    goals.goal("answers, metrics, logs and files with a key in them", value=quoted,
               passed=not quoted, count=len(answers + told + files))  # fmt: skip
    planted = server.home / "planted"
    planted.write_bytes(secrets[0])
    found = sum(secrets[0] in text for text in written(server))
    planted.unlink()
    goals.goal("a key that was put there is found", value=found, passed=found == 1, count=1)
    lines = log.read_bytes().count(b"\n")
    goals.goal("lines of the log that was searched", value=lines, passed=lines > 0, count=1)


def written(server: Served) -> list[bytes]:
    """Everything it wrote, and was started with."""
    return [path.read_bytes() for path in server.home.rglob("*") if path.is_file()]


def ask(client: Client, head: str, headers: tuple[str, ...], body: bytes) -> bytes:
    got = client.ask(head, *headers, body=body)
    return got.body + "".join(f"{name}: {value}\n" for name, value in got.headers.items()).encode()
