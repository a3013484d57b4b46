"""R19: nothing that fits through the door breaks what is behind it, and the description is true."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import schemathesis

from foreword.serving.gateway.access.keys import OPERATOR, issue
from foreword.serving.gateway.access.store import AccessStore
from foreword.serving.gateway.access.tenants import Tenant
from foreword.serving.gateway.admin.app import DESCRIPTION, admin_app
from foreword.serving.gateway.admin.parts import AdminParts
from foreword.serving.gateway.edge import EdgeSettings
from tests.gateway.access.samples import BY, NOW
from tests.gateway.admin.test_admin import USED, Replica
from tests.gateway.edge_server import JSON, Answer
from tests.reliability.counting import CONTEXT, spelling
from tests.reliability.front_made import made
from tests.reliability.fuzzed import Found, config, fuzz
from tests.reliability.hostile_bodies import BODIES, TEXT, limits
from tests.reliability.report import LONG, Goals
from tests.reliability.served import Served

pytestmark = pytest.mark.reliability("R19")

EXAMPLES = 500 if LONG else 8
SOON = 0.05


def judge(goals: Goals, found: Found, where: str) -> None:
    least = len(found.operations) * EXAMPLES
    goals.goal(f"{where}: requests, at least {EXAMPLES} for each operation", value=found.requests,
               passed=found.requests >= least, count=len(found.operations))  # fmt: skip
    missing = found.untried() + found.broken
    said = "".join(missing[:1])
    goals.goal(f"{where}: operations that a phase left out, and runs that broke {said}",
               value=len(missing), passed=not missing and found.links > 0,
               count=len(found.operations))  # fmt: skip
    for (operation, check), said in found.faults.items():
        goals.goal(f"{where}, {operation}: {check}: {said}", value="failed", passed=False, count=1)
    goals.goal(f"{where}: answers with 5xx but 503 and 504, or against the description",
               value=len(found.faults), passed=not found.faults, count=found.requests)  # fmt: skip
    well = sum(count for status, count in found.statuses.items() if status < 300)
    goals.goal(f"{where}: share that is answered; below a tenth, only the door was looked at",
               value=well / found.requests, passed=10 * well >= found.requests,
               count=found.requests)  # fmt: skip


def test_the_api_over_http(goals: Goals, counting_server: Served) -> None:
    server = counting_server
    schema = schemathesis.openapi.from_url(
        f"http://127.0.0.1:{server.port}/openapi.json",
        config=config(server.key, EXAMPLES),
        headers={"Authorization": f"Bearer {server.key}"},
    )
    judge(goals, fuzz(schema, server.alive), "the API over HTTP")


@pytest.mark.skipif(not LONG, reason="the same again without sockets: in the long run")
def test_the_api_in_process(goals: Goals) -> None:
    front = made(EdgeSettings(open=("/livez", "/readyz")), pause=0.0)
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", front.edge, config=config(front.key, EXAMPLES),
        headers={"Authorization": f"Bearer {front.key}"},
    )  # fmt: skip
    judge(goals, fuzz(schema, lambda: front.backend.running == 0), "the API in process")


def test_the_operators_api(goals: Goals, tmp_path: Path) -> None:
    store, replica = AccessStore(tmp_path), Replica()
    text, record = issue(OPERATOR, NOW)
    store.change(lambda table: table.with_key(record).with_tenant(Tenant("acme")), BY)
    app = admin_app(AdminParts(store, replica, replica, replica.drain, lambda: USED, lambda: NOW))
    schema = schemathesis.openapi.from_asgi(
        DESCRIPTION, app, config=config(text, EXAMPLES), headers={"Authorization": f"Bearer {text}"}
    )
    judge(goals, fuzz(schema, lambda: bool(store.table().keys)), "the operator's API")


def post(server: Served, path: str, body: bytes) -> Answer:
    return server.ask(f"POST {path}", server.authorized, JSON, body=body)


def test_bodies_that_broke_others_are_refused_at_once(
    goals: Goals, counting_server: Served
) -> None:
    server, times, wrong = counting_server, [], []
    for name, path, body in BODIES:
        tries = []
        for _ in range(5):
            began = time.monotonic()
            answer = post(server, path, body)
            tries.append(time.monotonic() - began)
        times.append(min(tries))
        if not 400 <= answer.status < 500 or not server.alive():
            wrong.append(f"{name}: {answer.status}")
    goals.goal(f"bodies of published attacks on vLLM that are not refused {wrong or ''}",
               value=len(wrong), passed=not wrong, count=len(BODIES))  # fmt: skip
    goals.goal("the slowest refusal takes at most 50 ms; in milliseconds", value=1000 * max(times),
               passed=max(times) <= SOON, count=len(BODIES))  # fmt: skip


def test_limits_are_where_they_are_said_to_be(goals: Goals, counting_server: Served) -> None:
    """What is just allowed is answered, and one more is refused."""
    server, wrong = counting_server, []
    for name, path, most, more in limits(CONTEXT, spelling(1)):
        got = post(server, path, most), post(server, path, more)
        if got[0].status != 200 or got[1].status not in (400, 413):
            wrong.append(f"{name}: {got[0].status} {got[0].body[:200]!r}, {got[1].status}")
    goals.goal(f"limits that are not where they should be {wrong or ''}", value=len(wrong),
               passed=not wrong, count=9)  # fmt: skip


def test_a_fault_behind_the_door_is_found_out(goals: Goals) -> None:
    """An engine that breaks on a field, and one that does not beat: the run sees both."""
    front = made(EdgeSettings(open=("/livez", "/readyz")), pause=0.0, breaks=True)
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", front.edge, config=config(front.key, 2, ("examples", "fuzzing")),
        headers={"Authorization": f"Bearer {front.key}"},
    )  # fmt: skip
    found = fuzz(schema, lambda: False, f"^{TEXT}$")
    checks = {check for _, check in found.faults}
    goals.goal("an engine that breaks and one that is not alive: found", value=len(checks),
               passed={"not_a_server_error", "the_engine_is_alive"} <= checks,
               count=found.requests)  # fmt: skip
