"""Another prefix answers only where the tenant's policy says so, and never silently."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foreword.errors import (
    AuthError,
    CompatibilityError,
    EngineFailed,
    ForewordError,
    NotFound,
    Overloaded,
    PrefixUnavailable,
    TrustError,
)
from foreword.registry.entries import Revoked
from foreword.serving.contract import BARE
from foreword.serving.gateway.access.tenants import Tenant
from foreword.serving.gateway.routing.fallback import PASSING, after_failure
from foreword.serving.gateway.routing.route import Fallback, Route
from tests.gateway.routing.made import KILL, Door, access_of, principal, released, table_of
from tests.registry.samples import facts

NAME, SAFE = "acme/support", "acme/safe"
ACME = principal()
GONE = PrefixUnavailable("the store is away", code="prefix.fetch_failed", retry_after=1.0)


def door(fallback: str = "none", canary: float = 0.0, base: bool = True) -> Door:
    tenant = Tenant("acme", base=base, fallback=fallback)
    return Door(table_of(released(NAME, SAFE, canary=canary)), access_of(tenant))


def stood_in(each: Door, error: BaseException = GONE, model: str = NAME) -> Route | None:
    route = each.router.route(ACME, model, "a key")
    return each.router.after_failure(ACME, route, error)


@pytest.mark.parametrize(
    "error",
    [
        PrefixUnavailable("no", code="prefix.revoked"),
        PrefixUnavailable("no", code="prefix.retired"),
        PrefixUnavailable("no", code="prefix.not_verified"),
        PrefixUnavailable("no", code="prefix.does_not_fit_base"),
        CompatibilityError("no", code="prefix.does_not_fit_base"),
        AuthError("no"), Overloaded("no"), EngineFailed("no"), TrustError("no"), NotFound("no"),
        ValueError("no"),
    ],
)  # fmt: skip
def test_no_policy_lets_anything_answer_after_these(error: BaseException) -> None:
    assert after_failure(error, "base") is None
    assert stood_in(door("base"), error) is None


@pytest.mark.parametrize("code", sorted(PASSING))
def test_only_the_policy_decides_about_a_prefix_that_cannot_be_had(code: str) -> None:
    error = PrefixUnavailable("no", code=code)
    assert after_failure(error, "none") is None
    assert after_failure(error, "base") == "base"
    assert after_failure(error, SAFE) == SAFE


def test_without_a_policy_nothing_stands_in() -> None:
    assert stood_in(door("none")) is None


def test_the_base_stands_in_and_the_route_says_for_what_and_why() -> None:
    route = stood_in(door("base"))
    assert route is not None
    assert (route.adapters, route.asked, route.arm) == (BARE, NAME, None)
    assert route.fallback == Fallback(f"{NAME}@1.0.0", "prefix.fetch_failed")


def test_a_safe_prefix_stands_in_with_its_stable_version() -> None:
    each = door(SAFE, canary=0.99)
    route = stood_in(each)
    assert route is not None
    assert route.prefix is not None
    assert (route.prefix.name, route.prefix.version, route.arm) == (SAFE, "1.0.0", "stable")
    assert route.fallback is not None
    assert each.used[-1] == route.prefix.digest


def test_the_stable_version_stands_in_for_a_canary_only_if_the_policy_names_it() -> None:
    for policy, version in (("none", None), ("base", None), (NAME, "1.0.0")):
        route = stood_in(door(policy, canary=0.5), model=f"{NAME}@canary")
        prefix = route.prefix if route else None
        assert (prefix.version if prefix else None) == version, policy
        if prefix and route:
            assert (route.arm, route.fallback) == (
                "stable", Fallback(f"{NAME}@2.0.0", "prefix.fetch_failed"),
            )  # fmt: skip


def test_nothing_stands_in_for_itself() -> None:
    assert stood_in(door(NAME)) is None


def test_a_fallback_that_fails_is_not_followed_by_another_one() -> None:
    each = door(SAFE)
    route = stood_in(each)
    assert route is not None
    each.access = door("base").access  # which would have something to offer
    assert each.router.after_failure(ACME, route, GONE) is None


def test_nothing_stands_in_for_the_bare_model() -> None:
    each = door(SAFE)
    assert each.router.after_failure(ACME, each.router.route(ACME, "base", ""), GONE) is None


def test_a_key_that_may_not_use_what_stands_in_gets_the_error() -> None:
    limited = principal(only=(NAME,))
    for policy in ("base", SAFE):
        each = door(policy)
        route = each.router.route(limited, NAME, "")
        assert each.router.after_failure(limited, route, GONE) is None


def test_what_stands_in_must_be_fit_to_answer_itself() -> None:
    each = door(SAFE)
    each.access = replace(each.access, killed={SAFE: KILL})
    assert stood_in(each) is None
    log = released(NAME, SAFE)
    log.add(Revoked(SAFE, facts("1.0.0", SAFE).digest, None))
    each = Door(table_of(log), door(SAFE).access)
    assert stood_in(each) is None


def test_a_killed_prefix_falls_back_as_the_policy_says_but_a_killed_tenant_does_not() -> None:
    each = door("base")
    each.access = replace(each.access, killed={NAME: KILL})
    route = each.router.route(ACME, NAME, "")
    assert route.fallback == Fallback(f"{NAME}@1.0.0", "prefix.killed")
    each.access = replace(each.access, killed={}, killed_tenants={"acme": KILL})
    with pytest.raises(ForewordError) as caught:
        each.router.route(ACME, NAME, "")
    assert caught.value.code == "model.not_found"


def test_a_revoked_version_is_an_error_whatever_the_policy_says() -> None:
    log = released(NAME, SAFE)
    log.add(Revoked(NAME, facts("2.0.0", NAME).digest, None))
    each = Door(table_of(log), door(SAFE).access)
    with pytest.raises(PrefixUnavailable) as caught:
        each.router.route(ACME, f"{NAME}@2.0.0", "")
    assert caught.value.code == "prefix.revoked"


def test_a_policy_that_changed_while_a_request_ran_holds_for_it() -> None:
    each = door("base")
    route = each.router.route(ACME, NAME, "")
    each.access = door("none").access
    assert each.router.after_failure(ACME, route, GONE) is None
