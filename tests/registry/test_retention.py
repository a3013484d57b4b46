"""Retention lets go only what nothing needs, says why, and never retires what changed meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact import Digest
from foreword.errors import UsageError
from foreword.registry.entries import (
    Aliased,
    BaseDeclared,
    Event,
    Published,
    Released,
    Revoked,
    RolledBack,
    Shifted,
)
from foreword.registry.facts import Lineage
from foreword.registry.registry import Registry
from foreword.registry.retention import Fate, Plan, Rules, apply, plan
from tests.registry.samples import BASE, NAME, NOW, POLICY, Log, by, claim, facts, publish

NOTHING = Rules(keep=0, older_than=timedelta(0), rollbacks=0)
LATER = NOW + timedelta(days=1)


def published(version: str, **changes: object) -> Published:
    return Published(facts(version, **changes), (claim(),))  # type: ignore[arg-type]


def digest(version: str, name: str = NAME) -> Digest:
    return facts(version, name).digest


def log(*events: Event, versions: int = 6) -> Log:
    """Versions 1.0.0, 1.1.0, ... and what happened to them."""
    return Log(BaseDeclared(BASE), *(published(f"1.{i}.0") for i in range(versions)), *events)


def going(plan: Plan) -> list[str]:
    return [fate.version for fate in plan.going]


def fate(plan: Plan, version: str) -> Fate:
    return next(fate for fate in plan.fates if fate.version == version)


def test_without_rules_all_that_nothing_needs_may_go() -> None:
    found = plan(log(versions=3).state, NOTHING, LATER)
    assert going(found) == ["1.0.0", "1.1.0", "1.2.0"]
    assert found.going[0].reason == "it was published 1 day ago, and nothing needs it"


USES = {
    "stable": ([Released(NAME, digest("1.0.0"), 1.0)], "it is stable"),
    "canary": (
        [Released(NAME, digest("1.1.0"), 1.0), Released(NAME, digest("1.0.0"), 0.25)],
        "it is the canary with share 0.25",
    ),
    "alias": ([Aliased(NAME, "gold", digest("1.0.0"))], "the alias 'gold' stands for it"),
    "parent of what serves": (
        [
            published("2.0.0", lineage=Lineage(None, None, digest("1.0.0"))),
            Released(NAME, digest("2.0.0"), 1.0),
        ],
        f"{NAME} 2.0.0 was trained from it",
    ),
}


@pytest.mark.parametrize(("events", "reason"), USES.values(), ids=USES)
def test_what_is_in_use_stays_however_old(events: list[Event], reason: str) -> None:
    found = plan(log(*events).state, NOTHING, LATER + timedelta(days=10_000))
    assert fate(found, "1.0.0") == Fate(NAME, "1.0.0", digest("1.0.0"), False, reason)
    assert fate(found, "1.5.0").goes


def test_an_alias_that_was_taken_away_holds_nothing() -> None:
    state = log(Aliased(NAME, "gold", digest("1.0.0")), Aliased(NAME, "gold", None)).state
    assert fate(plan(state, NOTHING, LATER), "1.0.0").goes


def test_a_parent_in_another_name_stays_for_its_child() -> None:
    child = published("1.0.0", name="acme/child", lineage=Lineage(None, None, digest("1.0.0")))
    state = log(child, Released("acme/child", child.digest, 1.0)).state
    found = plan(state, NOTHING, LATER, prefix=NAME)
    assert fate(found, "1.0.0").reason == "acme/child 1.0.0 was trained from it"
    assert {fate.name for fate in found.fates} == {NAME}


def test_ancestors_further_back_than_a_parent_may_go() -> None:
    chain = [
        published("2.0.0", lineage=Lineage(None, None, digest("1.0.0"))),
        published("3.0.0", lineage=Lineage(None, None, digest("2.0.0"))),
        Released(NAME, digest("3.0.0"), 1.0),
    ]
    found = plan(log(*chain, versions=1).state, NOTHING, LATER)
    assert going(found) == ["1.0.0"]


RELEASES = [Released(NAME, digest(f"1.{i}.0"), 1.0) for i in range(4)]


@pytest.mark.parametrize(
    ("rollbacks", "kept"),
    [(0, []), (1, ["1.2.0"]), (2, ["1.1.0", "1.2.0"]), (9, ["1.0.0", "1.1.0", "1.2.0"])],
)
def test_the_last_ones_that_could_be_rolled_back_to_stay(rollbacks: int, kept: list[str]) -> None:
    found = plan(log(*RELEASES, versions=4).state, Rules(0, timedelta(0), rollbacks), LATER)
    stay = [fate.version for fate in found.fates if not fate.goes]
    assert stay == [*kept, "1.3.0"]


def test_what_was_rolled_back_from_is_no_rollback_target() -> None:
    events = [*RELEASES, RolledBack(NAME, digest("1.3.0"), digest("1.2.0"))]
    found = plan(log(*events, versions=4).state, Rules(0, timedelta(0), 1), LATER)
    assert going(found) == ["1.0.0", "1.3.0"]


def test_a_promoted_canary_leaves_the_old_stable_to_roll_back_to() -> None:
    events = [
        Released(NAME, digest("1.0.0"), 1.0),
        Released(NAME, digest("1.1.0"), 0.5),
        Shifted(NAME, digest("1.1.0"), 1.0),
    ]
    found = plan(log(*events, versions=2).state, Rules(0, timedelta(0), 1), LATER)
    assert going(found) == []


def test_a_revoked_version_takes_no_place_among_the_newest_or_the_targets() -> None:
    events = [*RELEASES, Revoked(NAME, digest("1.2.0"), None)]
    state = log(*events, versions=4).state
    assert [fate.version for fate in plan(state, NOTHING, LATER).fates] == [
        "1.0.0",
        "1.1.0",
        "1.3.0",
    ]
    assert going(plan(state, Rules(2, timedelta(0), 0), LATER)) == ["1.0.0"]
    assert going(plan(state, Rules(0, timedelta(0), 1), LATER)) == ["1.0.0"]


@pytest.mark.parametrize(("keep", "gone"), [(0, 6), (1, 5), (5, 1), (6, 0), (7, 0)])
def test_the_newest_of_each_name_stay(keep: int, gone: int) -> None:
    found = plan(log().state, Rules(keep, timedelta(0), 0), LATER)
    assert going(found) == [f"1.{i}.0" for i in range(gone)]


def test_a_version_stays_until_it_is_older_than_the_rule() -> None:
    state, rules = log(versions=1).state, Rules(0, timedelta(days=30), 0)
    assert going(plan(state, rules, NOW + timedelta(days=30))) == []
    assert going(plan(state, rules, NOW + timedelta(days=30, seconds=1))) == ["1.0.0"]


@pytest.mark.parametrize(
    "rules", [{"keep": -1}, {"rollbacks": -1}, {"older_than": timedelta(seconds=-1)}]
)
def test_a_rule_below_zero_is_refused(rules: dict[str, int]) -> None:
    with pytest.raises(UsageError) as caught:
        Rules(**rules)  # type: ignore[arg-type]
    assert caught.value.code == "retention.rules"


@given(st.integers(0, 7), st.integers(0, 7), st.integers(0, 7), st.integers(0, 7))
def test_more_is_never_kept_by_asking_for_less(a: int, b: int, c: int, d: int) -> None:
    state = log(*RELEASES).state
    less = plan(state, Rules(min(a, b), timedelta(0), min(c, d)), LATER)
    more = plan(state, Rules(max(a, b), timedelta(0), max(c, d)), LATER)
    assert set(going(more)) <= set(going(less))


# Applying, on a registry.


def three(registry: Registry) -> Plan:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        publish(registry, version)
    registry.release(f"{NAME}@1.2.0", policy=POLICY, by=by())
    return plan(registry.refresh(), NOTHING, LATER)


def test_applying_retires_what_the_plan_let_go_and_says_why(local: Registry) -> None:
    done = apply(local, three(local), by(reason=""))
    assert [(each.fate.version, each.refusal) for each in done] == [
        ("1.0.0", None),
        ("1.1.0", None),
    ]
    entries = [local.journal.entry(each.entry or 0) for each in done]
    assert [entry.kind for entry in entries] == ["retired", "retired"]
    assert entries[0].reason == done[0].fate.reason
    assert going(plan(local.refresh(), NOTHING, LATER)) == []


def test_the_operators_own_reason_is_recorded(local: Registry) -> None:
    done = apply(local, three(local), by(reason="spring cleaning"))
    assert local.journal.entry(done[0].entry or 0).reason == "spring cleaning"


def test_a_version_that_went_into_use_after_the_plan_stays(local: Registry) -> None:
    made = three(local)
    local.alias("gold", f"{NAME}@1.0.0", by=by("ben"))
    done = apply(local, made, by())
    assert [each.entry for each in done] == [None, None]
    assert all(each.refusal and "changed by others" in each.refusal for each in done)
    assert local.refresh().versions[made.going[0].digest].status == "live"


def test_what_became_a_rollback_target_after_the_plan_stays(local: Registry) -> None:
    # The decision alone would allow to retire 1.0.0: it neither serves nor has an alias.
    made = three(local)
    local.release(f"{NAME}@1.0.0", policy=POLICY, by=by("ben"))
    local.release(f"{NAME}@1.2.0", policy=POLICY, by=by("ben"))
    assert [each.entry for each in apply(local, made, by())] == [None, None]


def test_a_retirement_by_somebody_else_stops_the_name_and_only_it(local: Registry) -> None:
    three(local)
    publish(local, "1.0.0", name="acme/zebra")
    publish(local, "1.1.0", name="acme/zebra")
    made = plan(local.refresh(), NOTHING, LATER)
    local.retire(f"{NAME}@1.0.0", by=by("ben"))
    done = apply(local, made, by())
    assert [(each.fate.name, each.fate.version, each.refusal is None) for each in done] == [
        (NAME, "1.0.0", True),  # as planned, by somebody else
        (NAME, "1.1.0", False),
        ("acme/zebra", "1.0.0", True),
        ("acme/zebra", "1.1.0", True),
    ]


def test_a_plan_can_be_applied_twice(local: Registry) -> None:
    made = three(local)
    first, second = apply(local, made, by()), apply(local, made, by())
    assert [each.entry for each in first] == [each.entry for each in second]
