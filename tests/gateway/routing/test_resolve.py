"""Who gets which version, and what they are told who get none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact import Digest
from foreword.errors import (
    CompatibilityError,
    ForewordError,
    NotFound,
    PrefixUnavailable,
)
from foreword.registry.entries import Released, Retired, Revoked, Shifted
from foreword.serving.contract import BARE, AdapterSet
from foreword.serving.gateway.access.tenants import Tenant
from foreword.serving.gateway.routing.resolve import Model
from foreword.serving.gateway.routing.table import ReleaseTable
from tests.gateway.routing.made import (
    HERE,
    KILL,
    PROMPT,
    Door,
    access_of,
    alias,
    principal,
    released,
    table_of,
)
from tests.registry.samples import OTHER_BASE, Log, facts

NAME, THEIRS = "acme/support", "zebra/sales"
ACME = principal("acme")


def door(log: Log | None = None, **changes: object) -> Door:
    tenant = replace(Tenant("acme", base=True), **changes)  # type: ignore[arg-type]
    table = table_of(log or released(NAME, THEIRS, canary=0.5))
    return Door(table, access_of(tenant, Tenant("zebra")))


def digest(version: str, name: str = NAME) -> Digest:
    return facts(version, name).digest


def refusal(work: Callable[[], object]) -> ForewordError:
    with pytest.raises(ForewordError) as caught:
        work()
    return caught.value


# What answers.


def test_the_bare_model_has_no_prefix_and_no_arm() -> None:
    route = door().router.route(ACME, "base", "a key")
    assert (route.prefix, route.arm, route.adapters, route.model) == (None, None, BARE, "base")
    assert (route.base, route.fallback) == (HERE, None)


def test_a_route_says_all_that_a_request_needs() -> None:
    each = door(released(NAME))
    route = each.router.route(ACME, NAME, "a key")
    prefix = route.prefix
    assert prefix is not None
    assert (prefix.name, prefix.version, prefix.digest) == (NAME, "1.0.0", digest("1.0.0"))
    assert (prefix.length, prefix.prompt) == (facts().length, PROMPT)
    assert (route.asked, route.arm, route.seq) == (NAME, "stable", each.table.seq)
    assert route.adapters == AdapterSet(digest("1.0.0"))
    assert each.used == [digest("1.0.0")]


def test_a_prefix_named_base_without_a_tenant_cannot_take_the_place_of_the_model() -> None:
    each = door(released("base", NAME), grants=("base",))
    assert each.router.route(ACME, "base", "").adapters == BARE
    assert each.router.route(ACME, "base@1.0.0", "").adapters == AdapterSet(digest("1.0.0", "base"))


@pytest.mark.parametrize("form", [f"{NAME}@2.0.0", f"{NAME}@night", str(digest("2.0.0"))])
def test_what_names_one_version_pins_it_for_every_key(form: str) -> None:
    log = released(NAME, canary=0.5)
    alias(log, "night", "2.0.0", NAME)
    router = door(log).router
    routes = {router.route(ACME, form, f"user {i}") for i in range(50)}
    assert {(r.prefix.version if r.prefix else "", r.arm) for r in routes} == {("2.0.0", "pinned")}


@given(st.text(max_size=40), st.floats(0.01, 0.9), st.floats(0, 0.99))
def test_a_key_keeps_its_arm_and_a_growing_canary_keeps_its_keys(
    key: str, share: float, more: float
) -> None:
    log = released(NAME, canary=share)
    first = door(log).router.route(ACME, NAME, key)
    assert door(log).router.route(ACME, NAME, key) == first
    log.add(Shifted(NAME, digest("2.0.0"), share + (0.99 - share) * more))
    later = door(log).router.route(ACME, NAME, key)
    if first.arm == "canary":
        assert later.arm == "canary"


def test_keys_are_shared_between_the_arms_as_the_release_says() -> None:
    router = door(released(NAME, canary=0.25)).router
    arms = [router.route(ACME, NAME, f"user {i}").arm for i in range(4_000)]
    assert 900 < arms.count("canary") < 1_100


def test_a_name_of_another_tenant_answers_where_it_was_granted() -> None:
    assert door(grants=(THEIRS,)).router.route(ACME, THEIRS, "").prefix
    assert door(grants=("zebra/*",)).router.route(ACME, f"{THEIRS}@1.0.0", "").prefix


# What does not.


def test_a_killed_prefix_of_ones_own_says_so() -> None:
    each = door()
    for target in (NAME, f"{NAME}@1.0.0", str(digest("1.0.0"))):
        each.access = replace(each.access, killed={target: KILL})
        error = refusal(lambda: each.router.route(ACME, f"{NAME}@1.0.0", ""))
        assert isinstance(error, PrefixUnavailable)
        assert (error.code, error.retry_after) == ("prefix.killed", None)
        assert KILL.reason not in str(error)
    assert each.router.route(ACME, f"{NAME}@2.0.0", "").prefix
    assert each.unread == []


def test_a_granted_prefix_of_a_killed_tenant_is_not_used() -> None:
    each = door(grants=(THEIRS,))
    each.access = replace(each.access, killed_tenants={"zebra": KILL})
    assert refusal(lambda: each.router.route(ACME, THEIRS, "")).code == "prefix.killed"


def test_a_version_that_ended_is_refused_by_any_of_its_names() -> None:
    log = released(NAME)
    log.add(Released(NAME, digest("2.0.0"), 1))
    log.add(Revoked(NAME, digest("1.0.0"), None))
    router = door(log).router
    for form in (f"{NAME}@1.0.0", str(digest("1.0.0"))):
        assert refusal(lambda form=form: router.route(ACME, form, "")).code == "prefix.revoked"  # type: ignore[misc]
    log = released(NAME)
    log.add(Retired(NAME, digest("2.0.0")))
    router = door(log).router
    assert refusal(lambda: router.route(ACME, f"{NAME}@2.0.0", "")).code == "prefix.retired"


def test_a_prefix_for_another_base_is_refused_and_not_listed() -> None:
    each = door()
    each.base = OTHER_BASE.ref.fingerprint
    error = refusal(lambda: each.router.route(ACME, NAME, ""))
    assert isinstance(error, CompatibilityError)
    assert error.code == "prefix.does_not_fit_base"
    assert each.router.models(ACME) == (Model("base", None),)


def test_a_version_whose_manifest_was_not_read_is_asked_for_and_refused_meanwhile() -> None:
    each = door(released(NAME))
    each.table = replace(each.table, prompts={})
    error = refusal(lambda: each.router.route(ACME, NAME, ""))
    assert isinstance(error, PrefixUnavailable)
    assert error.code == "prefix.fetch_failed"
    assert error.retry_after is not None
    assert error.retry_after <= 2
    assert (each.unread, each.used) == ([digest("1.0.0")], [])


# Nobody learns what others have.

FOREIGN = {
    "not yours": THEIRS,
    "not there": "zebra/nothing",
    "not yours, a version": f"{THEIRS}@1.0.0",
    "not there, a version": "zebra/nothing@1.0.0",
    "not there, a version of theirs": f"{THEIRS}@9.9.9",
    "not yours, an alias": f"{THEIRS}@stable",
    "not there, an alias": "zebra/nothing@stable",
    "not yours, a digest": str(digest("1.0.0", THEIRS)),
    "not there, a digest": str(Digest.of(b"nobody's")),
    "killed for them": "zebra/killed",
    "revoked for them": "zebra/revoked@1.0.0",
    "of another base": "zebra/elsewhere",
    "of no tenant": "support",
    "of ones own, not there": "acme/nothing",
    "of ones own, no such version": f"{NAME}@9.9.9",
    "malformed": "zebra//sales",
    "malformed, a digest": "sha256:12",
    "empty": "",
    "long": "zebra/" + "a" * 5_000,
}


def foreign() -> Door:
    log = released(NAME, THEIRS, "zebra/killed", "zebra/revoked", "zebra/elsewhere", "support")
    log.add(Revoked("zebra/revoked", digest("1.0.0", "zebra/revoked"), None))
    each = door(log, base=False)
    elsewhere = digest("1.0.0", "zebra/elsewhere")
    known = replace(each.table.versions[elsewhere], base=OTHER_BASE.ref.fingerprint)
    each.table = replace(each.table, versions={**each.table.versions, elsewhere: known})
    each.access = replace(each.access, killed={"zebra/killed": KILL})
    return each


@pytest.mark.parametrize("what", FOREIGN)
def test_not_yours_and_not_there_are_told_alike(what: str) -> None:
    each, model = foreign(), FOREIGN[what]
    error = refusal(lambda: each.router.route(ACME, model, "a key"))
    reference = refusal(lambda: each.router.route(ACME, "zebra/nothing", "a key"))
    assert type(error) is type(reference) is NotFound
    assert error.code == reference.code == "model.not_found"
    assert str(error).replace(repr(model[:130]), "NAME") == str(reference).replace(
        repr("zebra/nothing"), "NAME"
    )
    assert (each.used, each.unread) == ([], [])


def test_a_key_that_may_not_use_the_bare_model_hears_the_same() -> None:
    each = foreign()
    error = refusal(lambda: each.router.route(ACME, "base", ""))
    reference = refusal(lambda: each.router.route(ACME, "zebra/nothing", ""))
    assert str(error).replace("'base'", "NAME") == str(reference).replace("'zebra/nothing'", "NAME")


def work_of(each: Door, model: str) -> list[str]:
    """Every call that routing a model makes, in order."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            calls.append(getattr(argument, "__name__", None) or frame.f_code.co_name)

    router = each.router
    sys.setprofile(note)
    try:
        router.route(ACME, model, "a key")
    except NotFound:
        pass
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(
    ("theirs", "nobodys"),
    [
        (THEIRS, "zebra/nothing"),
        (f"{THEIRS}@1.0.0", "zebra/nothing@1.0.0"),
        (f"{THEIRS}@1.0.0", f"{THEIRS}@9.9.9"),
        (f"{THEIRS}@stable", "zebra/nothing@stable"),
        (str(digest("1.0.0", THEIRS)), str(Digest.of(b"nobody's"))),
        ("zebra/killed", "zebra/nothing"),
        ("zebra/revoked@1.0.0", "zebra/nothing@1.0.0"),
        ("zebra/elsewhere", "zebra/nothing"),
    ],
)
def test_not_yours_and_not_there_take_the_same_work(theirs: str, nobodys: str) -> None:
    each = foreign()
    work_of(each, theirs)  # what is made once, such as a compiled pattern, is made here
    found = work_of(each, theirs)
    assert found == work_of(each, nobodys)
    assert "find" in found  # the probe sees the look-up at all
    mine = work_of(each, NAME)
    assert mine != found  # and tells a name that is there from one that is not


def test_what_a_key_may_use_is_looked_at_for_every_request() -> None:
    each = door()
    assert each.router.route(ACME, NAME, "").prefix
    each.access = access_of(Tenant("acme", enabled=False))
    assert refusal(lambda: each.router.route(ACME, NAME, "")).code == "model.not_found"
    each.access = access_of(Tenant("acme"))
    assert each.router.route(ACME, NAME, "").prefix
    limited = principal("acme", only=("acme/other",))
    assert refusal(lambda: each.router.route(limited, NAME, "")).code == "model.not_found"


# What is listed.


def names(each: Door, who: str = "acme", only: tuple[str, ...] | None = None) -> list[str]:
    return [model.name for model in each.router.models(principal(who, only))]


def test_the_list_has_what_would_be_answered_and_nothing_else() -> None:
    log = released(NAME, "acme/killed", "acme/revoked", "acme/b", "acme/a", THEIRS, "zebra/hidden")
    log = Log(*(entry.event for entry in log.entries))
    log.add(Revoked("acme/revoked", digest("1.0.0", "acme/revoked"), None))
    each = door(log, grants=(THEIRS, "zebra/gone"))
    each.access = replace(each.access, killed={"acme/killed": KILL})
    assert names(each) == ["base", "acme/a", "acme/b", NAME, THEIRS]
    assert each.router.models(ACME)[1].parent == "base"
    for name in names(each):
        assert each.router.route(ACME, name, "")
    assert names(each, only=(NAME,)) == [NAME]
    assert names(each, "zebra") == ["zebra/hidden", THEIRS]
    assert names(each, "nobody") == []


def test_a_grant_for_all_of_a_tenant_lists_those_and_not_its_namesakes() -> None:
    each = door(released("zebra/a", "zebra/b", "zebras/c", "zebra-2/d"), grants=("zebra/*",))
    assert names(each) == ["base", "zebra/a", "zebra/b"]


def test_an_empty_table_lists_the_base_alone() -> None:
    each = door()
    each.table = ReleaseTable()
    assert names(each) == ["base"]
