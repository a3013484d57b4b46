"""Who may use what: tables of cases, and the whole matrix of twenty tenants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foreword.artifact import Digest
from foreword.errors import ConfigError, NotFound
from foreword.serving.gateway.access.authorise import allowed
from foreword.serving.gateway.access.keys import believe
from foreword.serving.gateway.access.kills import Kill
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import Tenant
from tests.gateway.access.samples import NOW, table_of, with_key

TENANTS = [f"t{i:02}" for i in range(20)]
KILL = Kill("leak", "me", NOW)
DIGEST = Digest.of(b"one")

ACME = Tenant("acme", grants=("other/shared", "wide/*"), base=True)
CASES = [
    ("acme/support", True),
    ("acme/anything-new", True),
    ("other/shared", True),
    ("other/shared2", False),
    ("other/private", False),
    ("wide/a", True),
    ("wider/a", False),
    ("acme2/support", False),
    ("acm/support", False),
    ("support", False),
    ("acme", False),
    ("wide/*", True),  # no name can be written so; it would mean nothing to the registry
    (None, True),
]


@pytest.mark.parametrize(("name", "may"), CASES)
def test_own_and_granted_prefixes_and_nothing_else(name: str | None, may: bool) -> None:
    table, header, _ = with_key(table_of(ACME, Tenant("other"), Tenant("wide")), "acme")
    assert allowed(table, believe(table, header, NOW), name) is may


@pytest.mark.parametrize(
    ("only", "name", "may"),
    [
        (("acme/support",), "acme/support", True),
        (("acme/support",), "acme/sales", False),
        (("acme/support",), "other/shared", False),
        (("acme/support",), None, False),
        (("acme/support", "base"), None, True),
        (("other/*",), "other/shared", True),
        (("other/*",), "other/private", False),  # a key never has more than its tenant
        (("secret/x",), "secret/x", False),
    ],
)
def test_a_limited_key_has_a_part_of_what_its_tenant_has(
    only: tuple[str, ...], name: str | None, may: bool
) -> None:
    table, header, _ = with_key(table_of(ACME), "acme", only=only)
    assert allowed(table, believe(table, header, NOW), name) is may


def test_the_bare_model_needs_to_be_allowed() -> None:
    table, header, _ = with_key(table_of(replace(ACME, base=False)), "acme")
    assert not allowed(table, believe(table, header, NOW), None)


def test_what_was_granted_is_asked_again_for_every_request() -> None:
    table, header, _ = with_key(table_of(ACME), "acme")
    principal = believe(table, header, NOW)  # as a stream that goes on keeps it
    assert allowed(table, principal, "other/shared")
    assert not allowed(table.with_tenant(Tenant("acme")), principal, "other/shared")
    assert not allowed(table.with_killed_tenant("acme", KILL), principal, "acme/support")
    assert not allowed(table.with_tenant(replace(ACME, enabled=False)), principal, "acme/support")
    assert not allowed(table.without_tenant("acme"), principal, "acme/support")


def matrix() -> tuple[AccessTable, dict[str, str]]:
    """Tenant i was granted one prefix of the next and all of the one after that."""
    tenants = [
        Tenant(name, (f"{TENANTS[(i + 1) % 20]}/p3", f"{TENANTS[(i + 2) % 20]}/*"))
        for i, name in enumerate(TENANTS)
    ]
    table, headers = table_of(*tenants), {}
    for name in TENANTS:
        table, headers[name], _ = with_key(table, name)
    return table, headers


def test_twenty_tenants_use_no_more_and_no_less_than_was_granted() -> None:
    table, headers = matrix()
    for i, tenant in enumerate(TENANTS):
        principal = believe(table, headers[tenant], NOW)
        for j, owner in enumerate(TENANTS):
            for p in range(20):
                granted = (j - i) % 20 in (0, 2) or ((j - i) % 20 == 1 and p == 3)
                assert allowed(table, principal, f"{owner}/p{p}") is granted


def test_an_operators_key_uses_no_prefix() -> None:
    table, header, _ = with_key(table_of(ACME), "")
    principal = believe(table, header, NOW)
    assert not any(allowed(table, principal, name) for name in ("acme/support", "support", None))


@pytest.mark.parametrize(
    ("target", "killed"),
    [
        ("acme/support", True),
        ("acme/support@1.0.0", True),
        (str(DIGEST), True),
        ("acme/support@1.0.1", False),
        ("acme/suppor", False),
        (str(Digest.of(b"two")), False),
    ],
)
def test_a_kill_stops_a_name_a_version_or_a_digest(target: str, killed: bool) -> None:
    table = table_of(ACME).with_kill(target, KILL)
    assert table.kill_of("acme/support", "1.0.0", DIGEST) == (KILL if killed else None)
    assert table.without_kill(target).kill_of("acme/support", "1.0.0", DIGEST) is None


def test_a_killed_tenants_prefixes_are_stopped_for_those_they_were_granted_to() -> None:
    table = table_of(ACME).with_killed_tenant("other", KILL)
    assert table.kill_of("other/shared", "1.0.0", DIGEST) == KILL
    assert table.kill_of("acme/support", "1.0.0", DIGEST) is None


@pytest.mark.parametrize("target", ["acme/support@stable", "acme/*", "sha256:12", "", "a b"])
def test_what_nobody_could_say_afterwards_cannot_be_killed(target: str) -> None:
    with pytest.raises(ConfigError):
        table_of(ACME).with_kill(target, KILL)


def test_what_is_not_there_is_said_so() -> None:
    for refused in (
        lambda: AccessTable().tenant("acme"),
        lambda: AccessTable().without_tenant("acme"),
        lambda: AccessTable().key("0" * 16),
        lambda: AccessTable().without_kill("acme/x"),
        lambda: AccessTable().without_killed_tenant("acme"),
    ):
        with pytest.raises(NotFound) as error:
            refused()
        assert error.value.code.startswith("access.")


@pytest.mark.parametrize(
    "fallback", ["base", "other/safe", "acme", "acme/*", "acme/safe@1.0.0", ""]
)
def test_a_fallback_to_what_the_tenant_may_not_use_is_refused(fallback: str) -> None:
    with pytest.raises(ConfigError):
        Tenant("acme", fallback=fallback)


def test_a_fallback_to_what_it_may_use_is_kept() -> None:
    assert Tenant("acme", fallback="acme/safe").fallback == "acme/safe"
    assert Tenant("acme", base=True, fallback="base").fallback == "base"
    assert Tenant("acme", ("other/*",), fallback="other/safe").fallback == "other/safe"


@pytest.mark.parametrize(
    "grants", [("other/",), ("*/x",), ("*",), ("Other/x",), ("other/x", "other/x"), ("other/x*",)]
)
def test_a_grant_that_names_nothing_is_refused(grants: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        Tenant("acme", grants)
