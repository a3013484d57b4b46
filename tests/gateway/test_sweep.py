"""A kill ends what runs: clients are told why, the engine stops, and nothing slips through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from foreword.errors import Overloaded
from foreword.serving.gateway.access.kills import Kill
from foreword.serving.gateway.access.store import AccessStore
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import Tenant
from foreword.serving.gateway.prompting import Prompter
from foreword.serving.gateway.routing.resolve import Router
from foreword.serving.gateway.sweep import Sweep
from foreword.telemetry.records import RequestFinished
from tests.gateway.access.samples import BY
from tests.gateway.edge_server import until
from tests.gateway.front_door import NAME, FrontDoor, chat_body, front_door
from tests.gateway.routing.made import HERE

KILL = Kill("it hurts", "ana", datetime.now(UTC))
Change = Callable[[AccessTable], AccessTable]
SOON = 8.0
"""Half of what a whole answer takes here; it is a quarter of a second on a machine that is not busy."""


@pytest.fixture
def door() -> Iterator[FrontDoor]:
    with front_door() as opened, sweeping(opened):
        yield opened


@contextmanager
def sweeping(door: FrontDoor) -> Iterator[Sweep]:
    sweep = Sweep(lambda: door.door.access, door.front, door.backend)
    sweep.start()
    try:
        yield sweep
    finally:
        sweep.stop()


def change(door: FrontDoor, fn: Change) -> None:
    door.door.access = fn(door.door.access)


def key_of(door: FrontDoor, tenant: str) -> str:
    return door.keys[tenant].split("_")[1]


def stream(door: FrontDoor, tenant: str, **more: Any) -> tuple[threading.Thread, list[str]]:
    """A long streamed answer that is heard in a thread, and the lines heard so far."""
    lines: list[str] = []
    headers = {"Authorization": f"Bearer {door.keys[tenant]}"}
    body = chat_body(stream=True, max_tokens=300, **more)

    def hear() -> None:
        with httpx2.stream(
            "POST", f"{door.url}/v1/chat/completions", json=body, headers=headers, timeout=30
        ) as got:
            lines.extend(filter(None, got.iter_lines()))

    thread = threading.Thread(target=hear, daemon=True)
    thread.start()
    return thread, lines


ENDS: dict[str, tuple[Change, str]] = {
    "prefix": (lambda t: t.with_kill(NAME, KILL), "prefix.killed"),
    "tenant": (lambda t: t.with_killed_tenant("acme", KILL), "auth.tenant"),
    "disabled": (lambda t: t.with_tenant(Tenant("acme", base=True, enabled=False)), "auth.tenant"),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_stream_ends_with_the_reason_and_others_go_on(door: FrontDoor, case: str) -> None:
    fn, code = ENDS[case]
    door.backend.pause = 0.05
    hers, heard = stream(door, "acme", model=NAME)
    others, other = stream(door, "globex", model="globex/secret")
    until(lambda: len(door.front.running) == 2)
    change(door, fn)
    hers.join(SOON)
    assert not hers.is_alive()
    assert code in heard[-1]
    assert "[DONE]" not in "".join(heard)
    assert others.is_alive()
    door.backend.pause = 0.0
    others.join(20)
    assert other[-1] == "data: [DONE]"
    assert len(door.backend.cancelled) == 1
    until(lambda: len(door.records) == 2)  # each is told after its client has heard the end
    finished = {r.tenant: r.code for r in door.records if isinstance(r, RequestFinished)}
    assert finished == {"acme": code, "globex": ""}


def test_a_revoked_key_ends_its_own_requests_only(door: FrontDoor) -> None:
    door.backend.pause = 0.05
    hers, heard = stream(door, "acme", model=NAME)
    others, other = stream(door, "globex", model="globex/secret")
    until(lambda: len(door.front.running) == 2)
    key = key_of(door, "acme")
    change(door, lambda t: t.with_revoked(key, datetime.now(UTC)))
    hers.join(SOON)
    assert "auth.revoked" in heard[-1]
    assert others.is_alive()
    door.backend.pause = 0.0
    others.join(20)
    assert other[-1] == "data: [DONE]"


def test_what_did_not_say_anything_yet_falls_back_where_the_policy_says_so(door: FrontDoor) -> None:
    change(door, lambda t: t.with_tenant(Tenant("acme", base=True, fallback="base")))
    door.backend.first = 60.0
    answers: list[httpx2.Response] = []
    body = chat_body(max_tokens=2)
    asking = threading.Thread(
        target=lambda: answers.append(door.post("/v1/chat/completions", body)), daemon=True
    )
    asking.start()
    until(lambda: bool(door.front.running))
    door.backend.first = 0.0
    change(door, lambda t: t.with_kill(NAME, KILL))
    asking.join(SOON)
    assert answers[0].status_code == 200
    assert answers[0].json()["foreword"]["fallback"]["reason"] == "prefix.killed"


def test_a_kill_between_the_two_questions_is_not_missed(
    door: FrontDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The route was given; then the kill came and was swept; only then the request would have begun."""
    plain = Prompter.chat

    async def slow(self: Prompter, *given: Any) -> Any:
        found = await plain(self, *given)
        change(door, lambda t: t.with_kill(NAME, KILL))
        return found

    monkeypatch.setattr(Prompter, "chat", slow)
    answer = door.post("/v1/chat/completions", chat_body(max_tokens=2))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "prefix.killed")
    assert not door.backend.asked


def test_a_kill_by_another_process_is_seen_although_nobody_asks(tmp_path: Path) -> None:
    with front_door() as door:
        store = AccessStore(tmp_path)
        store.change(lambda _: door.door.access, BY)
        router = Router(lambda: door.door.table, store.table, HERE)
        sweep = Sweep(store.table, replace(door.front, router=router), door.backend)
        sweep.start()
        door.backend.pause = 0.05
        hers, heard = stream(door, "acme", model=NAME)
        until(lambda: bool(door.front.running))
        AccessStore(tmp_path).change(lambda t: t.with_kill(NAME, KILL), BY)
        hers.join(SOON)
        sweep.stop()
        assert not hers.is_alive()
        assert "prefix.killed" in heard[-1]


def test_what_a_killed_tenant_computed_is_forgotten_after_its_requests_ended() -> None:
    with front_door() as door:
        order: list[str] = []
        forget, failing = door.backend.forget_tenant, [True]

        def told(tenant: str) -> None:
            if failing:
                failing.pop()
                raise Overloaded("no answer")
            order.append(f"forget {tenant}")
            forget(tenant)

        door.backend.forget_tenant = told  # type: ignore[method-assign]
        door.backend.cancel = lambda name: order.append("cancel")  # type: ignore[method-assign]
        door.backend.pause = 0.005
        hers, _ = stream(door, "acme", model=NAME)
        until(lambda: bool(door.front.running))
        with sweeping(door):
            change(door, lambda t: t.with_killed_tenant("acme", KILL))
            until(lambda: len(order) == 2)  # a host that could not be told is told again
            change(door, lambda t: t.with_tenant(Tenant("third")))
            hers.join(20)
        assert order[:2] == ["cancel", "forget acme"]
        assert door.backend.forgotten_tenants == ["acme"]
