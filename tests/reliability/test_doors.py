"""R22: nothing without a key, whatever a request looks like; nothing listens that was not declared."""

from __future__ import annotations

import pytest
import uvicorn

from tests.gateway.edge_server import Client, answer, running, served
from tests.reliability.report import LONG, Goals
from tests.reliability.ways_in import OPEN, READINGS, Naive, Rooms, Way, ways

pytestmark = pytest.mark.reliability("R22")

COUNT = 20_000 if LONG else 2_000
PATHS = ("/v1/models", "/v1/models/base", "/v1/chat/completions", "/v1/completions", "/readyz")
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
    rooms, tried = Rooms(), ways(PATHS, 1_000)
    plain = uvicorn.Config(
        Naive(rooms, reading), port=0, log_config=None, access_log=False, lifespan="off", ws="none"
    )
    with running(plain) as (server, _):
        client = Client(server.servers[0].sockets[0].getsockname()[1])
        for way in tried:
            status(client, way)
    goals.goal(f"ways through doors that go by {reading!r}: found", value=rooms.reached,
               passed=rooms.reached > 0, count=len(tried))  # fmt: skip
