"""The operator's API: nothing without an admin key, every change once, told and seen at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from foreword.artifact import Digest
from foreword.registry.entries import Head
from foreword.registry.releases import Release
from foreword.serving.contract import ResidentPrefix
from foreword.serving.gateway.access.authorise import allowed
from foreword.serving.gateway.access.keys import OPERATOR, believe, issue
from foreword.serving.gateway.access.store import LOG, AccessStore
from foreword.serving.gateway.access.tenants import Tenant
from foreword.serving.gateway.admin.app import admin_app, described_app
from foreword.serving.gateway.admin.parts import AdminParts
from foreword.serving.gateway.routing.table import Named, ReleaseTable
from foreword.telemetry.usage import Counts, Key, Usage
from tests.gateway.access.samples import BY, NOW

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
USED = Usage(
    {
        Key("2026-03-01T10", "acme", "acme/x", "1.0.0", "EUR"): Counts(2, cost=Decimal("0.5")),
        Key("2026-03-01T11", "acme", "acme/x", "2.0.0", "EUR"): Counts(1, cost=Decimal("0.25")),
        Key("2026-03-01T12", "other", "base", "", "EUR"): Counts(5),
    },
    damaged=1,
)


@dataclass
class Replica:
    """What a process has around the API: releases it has read, prefixes it holds, a way to stop."""

    table: ReleaseTable = field(
        default_factory=lambda: ReleaseTable(
            Head(7, "0" * 64),
            {
                "acme/x": Named(
                    "acme/x", Release("acme/x", ONE, TWO, 0.25), {}, {"1.0.0": ONE, "2.0.0": TWO}
                )
            },
            order=("acme/x",),
        )
    )
    age: float = 0.5
    asked: list[Digest] = field(default_factory=list)
    drained: int = 0

    def residents(self) -> tuple[ResidentPrefix, ...]:
        return (ResidentPrefix(ONE, 4096, pins=2),)

    def prefetch(self, digests: Sequence[Digest]) -> None:
        self.asked += digests

    def forget(self, digests: Sequence[Digest]) -> None:
        raise AssertionError("the operator's API forgets nothing")

    def forget_tenant(self, tenant: str) -> None:
        raise AssertionError("the operator's API forgets nothing")

    def drain(self) -> None:
        self.drained += 1


@dataclass
class Desk:
    """An operator with a key, at a real application over a real file."""

    store: AccessStore
    replica: Replica
    client: TestClient
    key_id: str

    def log(self) -> list[dict[str, Any]]:
        lines = (self.store.directory / LOG).read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    store, replica = AccessStore(tmp_path), Replica()
    text, record = issue(OPERATOR, NOW)
    store.change(lambda table: table.with_key(record).with_tenant(Tenant("acme")), BY)
    parts = AdminParts(
        store,
        replica,
        replica,
        replica.drain,
        lambda: USED,
        lambda: NOW,
    )
    with TestClient(admin_app(parts), headers={"Authorization": f"Bearer {text}"}) as client:
        yield Desk(store, replica, client, record.id)


def operations() -> list[tuple[str, str]]:
    """Every method and path of the API, with something in the places of its parameters."""
    description = described_app(AdminParts(AccessStore("/nonexistent"))).openapi()
    return [
        (
            method.upper(),
            path.replace("{name}", "acme").replace("{target}", "acme/x").replace("{id}", "0" * 16),
        )
        for path, item in description["paths"].items()
        for method in item
    ]


EVERY = [*operations(), ("GET", "/admin/openapi.json"), ("GET", "/"), ("GET", "/admin"), ("POST", "/v1/x"),
         ("OPTIONS", "/admin/tenants"), ("GET", "/admin//tenants"), ("GET", "/docs")]  # fmt: skip


def test_the_description_names_every_route() -> None:
    assert len(operations()) == 19


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_nothing_is_answered_without_an_admin_key(desk: Desk, method: str, path: str) -> None:
    text, record = issue("acme", NOW)
    desk.store.change(lambda table: table.with_key(record), BY)
    before = desk.store.table()
    for header, status in (
        ("", 401),
        ("Bearer x", 401),
        (f"Bearer fwk_{desk.key_id}_{'a' * 43}", 401),
        (f"Bearer {text}", 403),
    ):
        answer = desk.client.request(method, path, headers={"Authorization": header}, json={})
        assert answer.status_code == status
        assert answer.json()["error"]["code"].startswith("auth.")
    assert desk.store.table() == before
    assert (desk.replica.asked, desk.replica.drained) == ([], 0)


def test_two_authorization_headers_are_refused(desk: Desk) -> None:
    good = desk.client.headers["authorization"]
    for pair in ([good, "Bearer x"], ["Bearer x", good], [good, good]):
        headers = [("Authorization", value) for value in pair]
        assert desk.client.get("/admin/tenants", headers=headers).status_code == 401


def test_a_revoked_admin_key_ends_at_once(desk: Desk) -> None:
    assert desk.client.delete(f"/admin/keys/{desk.key_id}").json()["revoked"]
    assert desk.client.get("/admin/tenants").json()["error"]["code"] == "auth.revoked"


def test_a_tenant_is_made_shown_replaced_and_removed(desk: Desk) -> None:
    body = {"grants": ["acme/x"], "base": True, "fallback": "base", "limits": {"tokens": 100}}
    made = desk.client.put("/admin/tenants/other", json=body)
    assert made.status_code == 200
    shown = desk.client.get("/admin/tenants/other").json()
    assert shown == made.json()
    assert shown["limits"] == {"requests": None, "tokens": 100, "streams": None}
    assert [each["name"] for each in desk.client.get("/admin/tenants").json()["tenants"]] == [
        "acme", "other",
    ]  # fmt: skip
    assert desk.client.put("/admin/tenants/other", json={}).json()["grants"] == []
    assert desk.client.delete("/admin/tenants/other").status_code == 204
    assert desk.client.get("/admin/tenants/other").status_code == 404
    assert desk.client.delete("/admin/tenants/other").status_code == 404


def test_an_issued_key_is_shown_once_and_works(desk: Desk) -> None:
    body = {"tenant": "acme", "only": ["acme/x"], "expires": "2027-01-01T00:00:00Z", "note": "ci"}
    answer = desk.client.post("/admin/keys", json=body)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    text, key_id = answer.json()["key"], answer.json()["id"]
    principal = believe(desk.store.table(), f"Bearer {text}", NOW)
    assert allowed(desk.store.table(), principal, "acme/x")
    secret = text.split("_", 2)[2]
    for path in ("/admin/keys", f"/admin/keys/{key_id}", "/admin/keys?tenant=acme"):
        shown = desk.client.get(path).text
        assert key_id in shown
        assert secret not in shown
        assert "sha256" not in shown
    assert secret not in (desk.store.directory / LOG).read_text()


def test_a_rotated_key_and_its_successor_both_work_for_the_overlap(desk: Desk) -> None:
    old = desk.client.post("/admin/keys", json={"tenant": "acme"}).json()
    new = desk.client.post(f"/admin/keys/{old['id']}/rotate", json={"overlap_seconds": 60}).json()
    assert new["replaces"]["expires"] == "2026-03-01T12:01:00Z"
    for text in (old["key"], new["key"]):
        believe(desk.store.table(), f"Bearer {text}", NOW)
    revoked = desk.client.delete(f"/admin/keys/{old['id']}")
    assert revoked.json()["revoked"] == "2026-03-01T12:00:00Z"
    again = desk.client.post(f"/admin/keys/{old['id']}/rotate", json={})
    assert (again.status_code, again.json()["error"]["code"]) == (400, "access.key_ended")


def test_a_kill_is_in_the_table_when_it_is_answered(desk: Desk) -> None:
    for target, version in (("acme/x", "3.0.0"), ("acme/x@1.0.0", "1.0.0"), (str(ONE), "9.9.9")):
        path = f"/admin/kills/prefixes/{target}"
        assert desk.client.put(path, json={"reason": "leak"}).json()["by"] == desk.key_id
        assert desk.store.table().kill_of("acme/x", version, ONE)
        assert target in desk.client.get("/admin/kills").json()["prefixes"]
        assert desk.client.delete(path).status_code == 204
        assert not desk.store.table().kill_of("acme/x", version, ONE)
        assert desk.client.delete(path).status_code == 404
    desk.client.put("/admin/kills/tenants/acme", json={"reason": "spam"})
    assert desk.store.table().active("acme") is None
    assert desk.client.get("/admin/tenants/acme").json()["killed"]["reason"] == "spam"
    desk.client.delete("/admin/kills/tenants/acme")
    assert desk.store.table().active("acme")


def test_what_was_changed_since_it_was_seen_is_not_overwritten(desk: Desk) -> None:
    seen = desk.client.get("/admin/tenants/acme").headers["etag"]
    first = desk.client.put("/admin/tenants/acme", json={"base": True}, headers={"If-Match": seen})
    assert first.status_code == 200
    assert first.headers["etag"] != seen
    late = desk.client.put("/admin/tenants/acme", json={}, headers={"If-Match": seen})
    assert (late.status_code, late.json()["error"]["code"]) == (412, "access.conflict")
    assert desk.store.table().tenant("acme").base
    for any_generation in ({}, {"If-Match": "*"}, {"If-Match": first.headers["etag"]}):
        answer = desk.client.put("/admin/tenants/acme", json={"base": True}, headers=any_generation)
        assert answer.status_code == 200
    for wrong in ("12", 'W/"1"', '"x"', '"-1"'):
        answer = desk.client.put("/admin/tenants/acme", json={}, headers={"If-Match": wrong})
        assert answer.json()["error"]["code"] == "admin.if_match"


def test_every_change_is_told_with_who_made_it(desk: Desk) -> None:
    desk.client.put("/admin/tenants/other", json={})
    desk.client.put("/admin/kills/prefixes/acme/x", json={"reason": "leak"})
    desk.client.delete("/admin/tenants/other")
    told = desk.log()[1:]
    assert {line["actor"] for line in told} == {desk.key_id}
    assert [list(line["changed"]) for line in told] == [
        ["tenants.other"], ["killed.acme/x"], ["tenants.other"],
    ]  # fmt: skip
    assert told[1]["reason"] == "leak"
    assert told[2]["changed"]["tenants.other"] is None


BAD = [
    ("put", "/admin/tenants/acme", {"bas": True}),
    ("put", "/admin/tenants/acme", {"base": "yes"}),
    ("put", "/admin/tenants/acme", {"limits": {"tokens": 1.5}}),
    ("put", "/admin/tenants/acme", {"limits": {"tokens": -1}}),
    ("put", "/admin/tenants/acme", {"fallback": "base"}),
    ("put", "/admin/tenants/acme", {"grants": ["*"]}),
    ("put", "/admin/tenants/acme", []),
    ("put", "/admin/tenants/No", {}),
    ("post", "/admin/keys", {"tenant": "acme", "scopes": ["admin"]}),
    ("post", "/admin/keys", {"tenant": "acme", "expires": "2027-01-01T00:00:00"}),
    ("post", "/admin/keys", {"tenant": "acme", "scopes": []}),
    ("post", "/admin/keys", {"tenant": "acme", "expires": "9999-12-31T23:59:59-01:00"}),
    ("post", "/admin/keys", {"tenant": "acme", "expires": "9999-01-01T00:00:00Z"}),
    ("post", "/admin/residents/prefetch", {"digests": ["sha256:12"]}),
    ("post", "/admin/residents/prefetch", {"digests": []}),
    ("put", "/admin/kills/prefixes/acme/x", {}),
    ("put", "/admin/kills/prefixes/acme/x@stable", {"reason": "x"}),
    ("put", "/admin/kills/prefixes/acme/x", {"reason": "two\nlines"}),
]


@pytest.mark.parametrize(("method", "path", "body"), BAD)
def test_what_cannot_be_is_refused_and_changes_nothing(
    desk: Desk, method: str, path: str, body: Any
) -> None:
    before = desk.store.table()
    answer = desk.client.request(method, path, json=body)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert desk.store.table() == before


def test_a_key_in_the_wrong_place_is_not_repeated(desk: Desk) -> None:
    text, _ = issue("acme", NOW)
    for answer in (
        desk.client.post("/admin/keys", json={"tenant": "acme", "note": [text]}),
        desk.client.post("/admin/keys", content=f'{{"tenant": "{text}'),
        desk.client.get(f"/admin/nothing/{text}"),
    ):
        assert answer.status_code in (400, 404)
        assert text not in answer.text


def test_a_tenant_that_is_not_there_gets_no_key(desk: Desk) -> None:
    answer = desk.client.post("/admin/keys", json={"tenant": "nobody"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "access.tenant_unknown")


def test_what_this_replica_knows_and_has(desk: Desk) -> None:
    releases = desk.client.get("/admin/releases").json()
    assert (releases["seq"], releases["age_seconds"]) == (7, 0.5)
    assert releases["names"]["acme/x"] == {
        "stable": str(ONE),
        "canary": str(TWO),
        "share": 0.25,
        "versions": {"1.0.0": str(ONE), "2.0.0": str(TWO)},
    }
    residents = desk.client.get("/admin/residents").json()["residents"]
    assert residents == [{"digest": str(ONE), "nbytes": 4096, "pins": 2}]
    answer = desk.client.post("/admin/residents/prefetch", json={"digests": [str(TWO)]})
    assert (answer.status_code, desk.replica.asked) == (202, [TWO])
    assert desk.client.post("/admin/drain").status_code == 202
    assert desk.replica.drained == 1


def test_what_was_used_by_tenant_and_since_when(desk: Desk) -> None:
    def rows(query: str = "") -> dict[tuple[str, str], tuple[int, str]]:
        used = desk.client.get(f"/admin/usage{query}").json()
        assert used["damaged_lines"] == 1
        return {(r["tenant"], r["prefix"]): (r["requests"], r["cost"]) for r in used["usage"]}

    every = {("acme", "acme/x"): (3, "0.75"), ("other", "base"): (5, "0")}
    assert rows() == every
    assert rows("?tenant=other") == {("other", "base"): (5, "0")}
    assert rows("?since=2026-03-01T11:30:00Z") == every | {("acme", "acme/x"): (1, "0.25")}
    assert rows("?since=2026-03-01T13:30:00Z") == {}
    assert desk.client.get("/admin/usage?since=yesterday").status_code == 400


def test_what_this_process_does_not_have_is_said(desk: Desk) -> None:
    bare: Callable[..., Any] = admin_app(AdminParts(desk.store, now=lambda: NOW))
    with TestClient(bare, headers=dict(desk.client.headers)) as client:
        for method, path in (
            ("GET", "/admin/releases"),
            ("GET", "/admin/residents"),
            ("POST", "/admin/drain"),
            ("GET", "/admin/usage"),
        ):
            answer = client.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "admin.not_here")


def test_a_damaged_table_refuses_changes_and_lets_the_operator_in(desk: Desk) -> None:
    desk.store.path.write_bytes(b"{")
    answer = desk.client.put("/admin/tenants/other", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "access.form")
    assert desk.client.get("/admin/tenants").status_code == 200
