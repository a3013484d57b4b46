"""Which requests may not go on when the table changes under them, as a table of cases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from foreword.artifact import Digest
from foreword.serving.gateway.access.ended import newly_gone, why_ended
from foreword.serving.gateway.access.keys import issue
from foreword.serving.gateway.access.kills import Kill
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import Tenant
from tests.gateway.access.samples import NOW

KILL = Kill("it hurts", "ana", NOW)
USED = ("other/shared", "1.0.0", Digest.of(b"shared"))
_, KEY = issue("acme", NOW, expires=NOW + timedelta(hours=1))
TABLE = AccessTable(
    {"acme": Tenant("acme", ("other/shared",), base=True), "other": Tenant("other")}, {KEY.id: KEY}
)
WHO = Principal("acme", KEY.id, KEY.scopes)

CASES = {
    "nothing happened": (TABLE, None),
    "its tenant is killed": (TABLE.with_killed_tenant("acme", KILL), "auth.tenant"),
    "its tenant is disabled": (TABLE.with_tenant(Tenant("acme", enabled=False)), "auth.tenant"),
    "its tenant is gone": (TABLE.without_tenant("acme"), "auth.tenant"),
    "its key is revoked": (TABLE.with_revoked(KEY.id, NOW), "auth.revoked"),
    "its key is gone": (replace(TABLE, keys={}), None),
    "the name is killed": (TABLE.with_kill("other/shared", KILL), "prefix.killed"),
    "the version is killed": (TABLE.with_kill("other/shared@1.0.0", KILL), "prefix.killed"),
    "the digest is killed": (TABLE.with_kill(str(USED[2]), KILL), "prefix.killed"),
    "another version is killed": (TABLE.with_kill("other/shared@2.0.0", KILL), None),
    "its owner is killed": (TABLE.with_killed_tenant("other", KILL), "prefix.killed"),
    "its owner is disabled": (TABLE.with_tenant(Tenant("other", enabled=False)), None),
    "the grant is taken back": (TABLE.with_tenant(Tenant("acme", base=True)), None),
}


@pytest.mark.parametrize("case", CASES)
def test_what_ends_a_request_with_a_prefix(case: str) -> None:
    table, code = CASES[case]
    error = why_ended(table, WHO, USED)
    assert (error.code if error else None) == code


@pytest.mark.parametrize("case", CASES)
def test_the_bare_model_ends_with_its_tenant_or_key_only(case: str) -> None:
    table, code = CASES[case]
    error = why_ended(table, WHO, None)
    assert (error.code if error else None) == (None if code == "prefix.killed" else code)


def test_a_token_has_no_key_that_could_be_revoked() -> None:
    token = Principal("acme", "jwt:0123456789abcdef", KEY.scopes)
    assert why_ended(TABLE.with_revoked(KEY.id, NOW), token, USED) is None
    assert why_ended(TABLE.with_killed_tenant("acme", KILL), token, USED) is not None


def test_whose_work_is_forgotten_after_a_change() -> None:
    killed = TABLE.with_killed_tenant("acme", KILL)
    assert newly_gone(AccessTable(), TABLE) == set()
    assert newly_gone(AccessTable(), killed) == {"acme"}, "a process may be younger than its engine"
    assert newly_gone(TABLE, killed) == {"acme"}
    assert newly_gone(TABLE, TABLE.without_tenant("other")) == {"other"}
    assert newly_gone(TABLE, TABLE.with_tenant(Tenant("other", enabled=False))) == {"other"}
    assert newly_gone(killed, killed.with_tenant(Tenant("third"))) == set(), "told once"
    assert newly_gone(killed, killed.without_killed_tenant("acme")) == set()
