"""Why a name gives what it gives: the right entry, the right evidence, and where it came from."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from foreword.artifact import Digest
from foreword.errors import NotFound, RegistryError
from foreword.registry.entries import (
    Aliased,
    Approved,
    Attested,
    Published,
    Released,
    Revoked,
    RolledBack,
    Shifted,
)
from foreword.registry.facts import Lineage
from foreword.registry.lineage import ancestors, turns, why
from foreword.registry.registry import Registry
from tests.registry.samples import (
    NAME,
    NOW,
    POLICY,
    Log,
    attested,
    by,
    claim,
    facts,
    key,
    publish,
    sample,
)


def digest(version: str) -> Digest:
    return facts(version).digest


def log(*events: object) -> Log:
    versions = [Published(facts(f"1.{i}.0"), (claim(),)) for i in range(4)]
    return Log(*versions, *events)  # type: ignore[arg-type]


def test_only_what_changes_the_release_is_a_turn() -> None:
    made = log(
        Released(NAME, digest("1.0.0"), 1.0),  # 5
        Approved(NAME, digest("1.1.0")),
        Attested(NAME, digest("1.1.0"), claim("more", "review")),
        Aliased(NAME, "gold", digest("1.0.0")),
        Released(NAME, digest("1.1.0"), 0.1),  # 9
        Shifted(NAME, digest("1.1.0"), 0.5),  # 10
        Shifted(NAME, digest("1.1.0"), 1.0),  # 11
        RolledBack(NAME, digest("1.1.0"), digest("1.0.0")),  # 12
        Revoked(NAME, digest("1.2.0"), None),  # never served
        Revoked(NAME, digest("1.0.0"), None),  # 14, nothing is left
    )
    found = turns(made.entries, NAME)
    assert [turn.mark.seq for turn in found] == [5, 9, 10, 11, 12, 14]
    assert [turn.kind for turn in found] == [
        "released", "released", "shifted", "shifted", "rolled_back", "revoked",
    ]  # fmt: skip
    assert [turn.before for turn in found[1:]] == [turn.after for turn in found[:-1]]
    assert found[0].before is None
    assert found[-1].after is None


def released(registry: Registry) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        publish(registry, version, who=by("ana", f"published {version}"))
    registry.attest(
        f"{NAME}@1.1.0", attested(sample(version="1.1.0"), key("ana")), policy=POLICY, by=by("eve")
    )
    registry.approve(f"{NAME}@1.1.0", by=by("ben", "looks good"))
    registry.release(f"{NAME}@1.0.0", policy=POLICY, by=by("ana", "first", 10))
    registry.release(f"{NAME}@1.1.0", 0.1, policy=POLICY, by=by("ben", "try it", 20))
    registry.shift(NAME, 0.25, policy=POLICY, by=by("cleo", "going well", 30))


def test_each_arm_says_since_when_by_whom_and_why(registry: Registry) -> None:
    released(registry)
    found = why(registry, NAME)
    stable, canary = found.reasons
    assert (stable.arm, stable.version.version, stable.share) == ("stable", "1.0.0", 0.75)
    assert (canary.arm, canary.version.version, canary.share) == ("canary", "1.1.0", 0.25)
    # The shift gave the canary more keys; it became the canary before.
    assert (stable.since.mark.actor, stable.since.mark.reason) == ("ana", "first")
    assert (canary.since.mark.actor, canary.since.mark.reason) == ("ben", "try it")
    assert found.last
    assert (found.last.mark.actor, found.last.kind) == ("cleo", "shifted")


def test_the_evidence_is_what_was_said_of_that_version(registry: Registry) -> None:
    released(registry)
    _, canary = why(registry, NAME).reasons
    said = [(known.claim.kind, known.claim.verdict, known.mark.actor) for known in canary.evidence]
    assert said == [("sign", None, "ana"), ("evaluation", "pass", "eve")]
    assert canary.evidence[0].claim.signers == (key("ana").id,)
    assert [(mark.actor, mark.reason) for mark in canary.version.approvals] == [
        ("ben", "looks good")
    ]


def test_a_promotion_begins_a_new_time_as_stable(local: Registry) -> None:
    released(local)
    local.shift(NAME, 1.0, policy=POLICY, by=by("dan", "all of it"))
    (stable,) = why(local, NAME).reasons
    assert (stable.version.version, stable.share) == ("1.1.0", 1.0)
    assert (stable.since.kind, stable.since.mark.actor) == ("shifted", "dan")


def test_a_rollback_is_the_reason_for_what_it_brought_back(local: Registry) -> None:
    released(local)
    local.shift(NAME, 1.0, policy=POLICY, by=by("dan"))
    local.rollback(NAME, by=by("ona", "it hurts"))
    found = why(local, NAME)
    (stable,) = found.reasons
    assert stable.version.version == "1.0.0"
    assert (stable.since.kind, stable.since.mark.reason) == ("rolled_back", "it hurts")


def test_a_canary_that_was_taken_back_leaves_the_stable_version_where_it_was(
    local: Registry,
) -> None:
    released(local)
    local.rollback(NAME, by=by("ona", "it hurts"))
    found = why(local, NAME)
    (stable,) = found.reasons
    assert stable.since.mark.reason == "first"
    assert found.last
    assert found.last.mark.reason == "it hurts"


def test_a_revocation_that_left_nothing_is_the_last_word(local: Registry) -> None:
    publish(local)
    local.release(f"{NAME}@1.0.0", policy=POLICY, by=by())
    local.revoke(f"{NAME}@1.0.0", by=by("ona", "it leaks"))
    found = why(local, NAME)
    assert found.reasons == ()
    assert found.last
    assert (found.last.kind, found.last.mark.reason) == ("revoked", "it leaks")


def test_what_was_never_released_has_no_reasons(local: Registry) -> None:
    publish(local)
    assert why(local, NAME).reasons == ()
    assert why(local, NAME).last is None
    with pytest.raises(NotFound):
        why(local, "acme/nobody")


def test_a_version_says_what_it_was_made_from(local: Registry) -> None:
    data = Digest.of(b"rows")
    first = publish(local, "1.0.0", training={"seed": 1})
    second = publish(
        local,
        "1.1.0",
        training={
            "parent": str(first.digest),
            "data": {"digest": str(data)},
            "software": {"foreword": "0.2.0"},
        },
    )
    publish(local, "1.2.0", training={"parent": str(second.digest)})
    local.release(f"{NAME}@1.2.0", policy=POLICY, by=by())
    (stable,) = why(local, NAME).reasons
    assert [each.version and each.version.version for each in stable.ancestors] == [
        "1.1.0",
        "1.0.0",
    ]
    middle = stable.ancestors[0].version
    assert middle
    assert middle.facts.lineage == Lineage(data, "0.2.0", first.digest)


def test_a_parent_from_elsewhere_ends_the_chain_and_a_circle_does_too() -> None:
    def made(version: str, parent: Digest | None) -> Published:
        return Published(replace(facts(version), lineage=Lineage(None, None, parent)), (claim(),))

    stranger = Digest.of(b"never published here")
    state = Log(
        made("1.0.0", digest("1.1.0")), made("1.1.0", digest("1.0.0")), made("1.2.0", stranger)
    ).state
    (ancestor,) = ancestors(state, state.versions[digest("1.2.0")])
    assert (ancestor.digest, ancestor.version) == (stranger, None)
    assert [a.digest for a in ancestors(state, state.versions[digest("1.0.0")])] == [
        digest("1.1.0")
    ]


def test_it_is_json(registry: Registry) -> None:
    released(registry)
    found = json.loads(json.dumps(why(registry, NAME).to_json()))
    stable, canary = found["reasons"]
    assert canary["since"]["after"]["share"] == 0.1
    assert canary["evidence"][1]["verdict"] == "pass"
    assert stable["published"]["reason"] == "published 1.0.0"
    assert found["last"]["kind"] == "shifted"


def test_entries_that_are_hidden_from_their_name_are_an_error_and_no_crash(
    local: Registry,
) -> None:
    released(local)
    with closing(sqlite3.connect(local.database.path)) as connection:
        connection.execute("DROP TRIGGER journal_no_update")
        connection.execute("UPDATE journal SET name = 'acme/x' WHERE kind = 'released'")
        connection.commit()
    with (
        Registry.open(local.database.path.parent) as registry,
        pytest.raises(RegistryError) as caught,
    ):
        why(registry, NAME)
    assert caught.value.code == "registry.chain"


def test_a_thousand_turns_are_told_in_a_moment() -> None:
    made = log(Released(NAME, digest("1.0.0"), 1.0))
    for turn in range(500):
        made.add(Released(NAME, digest("1.1.0"), (turn % 9 + 1) / 10), by(seconds=turn))
        made.add(RolledBack(NAME, digest("1.1.0"), digest("1.0.0")), by(seconds=turn))
    found = turns(made.entries, NAME)
    assert len(found) == 1001
    assert found[-1].mark.time == (NOW + timedelta(seconds=499)).strftime("%Y-%m-%dT%H:%M:%SZ")
