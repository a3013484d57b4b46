"""What each command does, and what it refuses: a table of situations and commands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from foreword.artifact import Digest, Geometry, LayerGeometry, Site
from foreword.errors import (
    CompatibilityError,
    Conflict,
    ForewordError,
    NotFound,
    RegistryError,
    UsageError,
)
from foreword.registry import decide
from foreword.registry.decide import Already, Decision
from foreword.registry.entries import (
    Aliased,
    Approved,
    Attested,
    BaseDeclared,
    BaseWithdrawn,
    Published,
    Released,
    Retired,
    Revoked,
    RolledBack,
    Shifted,
)
from foreword.registry.facts import VersionFacts
from foreword.registry.references import ByDigest, ByName, ByVersion, parse_reference
from foreword.registry.state import State
from tests.registry.samples import BASE, NAME, OTHER_BASE, Log, by, claim, facts

V1, V2, V3, V4 = (facts(f"{number}.0.0") for number in (1, 2, 3, 4))
D1, D2, D3, D4 = V1.digest, V2.digest, V3.digest, V4.digest
ALIEN = facts("1.0.0", name="acme/alien", base=OTHER_BASE.ref)
UNKNOWN = Digest.of(b"unknown")

Command = Callable[[State], Decision]


def ref(text: str) -> ByName | ByVersion:
    return parse_reference(text)  # type: ignore[return-value]


def situation(name: str) -> State:
    """States that commands meet. `published` has versions 1 to 3, and version 1 of another base."""
    log = Log()
    if name == "empty":
        return log.state
    log.add(BaseDeclared(BASE))
    log.add(BaseDeclared(OTHER_BASE))
    for each in (V1, V2, V3, ALIEN):
        log.add(Published(each, (claim(),)), by("publisher"))
    then = {
        "published": [],
        "stable": [Released(NAME, D1, 1)],
        "canary": [Released(NAME, D1, 1), Released(NAME, D2, 0.1)],
        "promoted": [Released(NAME, D1, 1), Released(NAME, D2, 0.1), Shifted(NAME, D2, 1)],
        "three": [Released(NAME, D1, 1), Released(NAME, D2, 1), Released(NAME, D3, 1)],
        "back": [Released(NAME, D1, 1), Released(NAME, D2, 1), RolledBack(NAME, D2, D1)],
        "alias": [Aliased(NAME, "next", D2)],
        "unaliased": [Aliased(NAME, "next", D2), Aliased(NAME, "next", None)],
        "revoked": [Revoked(NAME, D2, None)],
        "retired": [Retired(NAME, D2)],
        "fallen": [Released(NAME, D1, 1), Revoked(NAME, D1, None)],
        "middle revoked": [Released(NAME, D1, 1), Released(NAME, D2, 1), Released(NAME, D3, 1),
                           Revoked(NAME, D2, None)],
        "there and back": [Released(NAME, D1, 1), Released(NAME, D2, 1), Released(NAME, D1, 1),
                           Retired(NAME, D2)],
        "only revoked before": [Released(NAME, D1, 1), Released(NAME, D2, 1),
                                Revoked(NAME, D1, None)],
        "withdrawn": [BaseWithdrawn(BASE.id)],
    }[name]  # fmt: skip
    for event in then:
        log.add(event)
    return log.state


def test_each_command_does_what_it_says() -> None:
    table: list[tuple[str, Command, object]] = [
        # Bases.
        ("empty", lambda s: decide.declare_base(s, BASE), BaseDeclared(BASE)),
        ("published", lambda s: decide.declare_base(s, BASE), Already(1)),
        ("withdrawn", lambda s: decide.declare_base(s, BASE), BaseDeclared(BASE)),
        ("published", lambda s: decide.withdraw_base(s, BASE.id), BaseWithdrawn(BASE.id)),
        ("withdrawn", lambda s: decide.withdraw_base(s, BASE.id), Already(7)),
        ("stable", lambda s: decide.withdraw_base(s, OTHER_BASE.id), BaseWithdrawn(OTHER_BASE.id)),
        # Publishing.
        ("published", lambda s: decide.publish(s, V4, (claim(),)), Published(V4, (claim(),))),
        ("published", lambda s: decide.publish(s, V1, (claim(),)), Already(3)),
        ("published", lambda s: decide.publish(s, V1, (claim("other"),)), Already(3)),
        # Saying something about a version.
        (
            "published",
            lambda s: decide.attest(s, D1, claim("new")),
            Attested(NAME, D1, claim("new")),
        ),
        ("published", lambda s: decide.attest(s, D1, claim()), Already(3)),
        ("published", lambda s: decide.approve(s, ByDigest(D1), "ana"), Approved(NAME, D1)),
        # Releasing.
        (
            "published",
            lambda s: decide.release(s, ref(f"{NAME}@1.0.0"), 1, 0),
            Released(NAME, D1, 1),
        ),
        ("stable", lambda s: decide.release(s, ref(f"{NAME}@1.0.0"), 1, 0), Already(7)),
        ("stable", lambda s: decide.release(s, ByDigest(D2), 0.1, 0), Released(NAME, D2, 0.1)),
        ("stable", lambda s: decide.release(s, ByDigest(D2), 0, 0), Released(NAME, D2, 0)),
        ("stable", lambda s: decide.release(s, ByDigest(D2), 1, 0), Released(NAME, D2, 1)),
        ("canary", lambda s: decide.release(s, ByDigest(D2), 0.1, 0), Already(8)),
        ("canary", lambda s: decide.release(s, ByDigest(D2), 0.2, 0), Released(NAME, D2, 0.2)),
        ("canary", lambda s: decide.release(s, ref(f"{NAME}@canary"), 1, 0), Released(NAME, D2, 1)),
        ("fallen", lambda s: decide.release(s, ByDigest(D2), 1, 0), Released(NAME, D2, 1)),
        # Shifting.
        ("canary", lambda s: decide.shift(s, NAME, 0.5), Shifted(NAME, D2, 0.5)),
        ("canary", lambda s: decide.shift(s, NAME, 0), Shifted(NAME, D2, 0)),
        ("canary", lambda s: decide.shift(s, NAME, 0.1), Already(8)),
        ("canary", lambda s: decide.shift(s, NAME, 1), Shifted(NAME, D2, 1)),
        ("promoted", lambda s: decide.shift(s, NAME, 1), Already(9)),
        # Rolling back.
        ("canary", lambda s: decide.rollback(s, NAME), RolledBack(NAME, D2, D1)),
        ("promoted", lambda s: decide.rollback(s, NAME), RolledBack(NAME, D2, D1)),
        ("three", lambda s: decide.rollback(s, NAME), RolledBack(NAME, D3, D2)),
        ("back", lambda s: decide.rollback(s, NAME), Already(9)),
        ("middle revoked", lambda s: decide.rollback(s, NAME), RolledBack(NAME, D3, D1)),
        ("three", lambda s: decide.rollback(s, NAME, ByDigest(D1)), RolledBack(NAME, D3, D1)),
        ("three", lambda s: decide.rollback(s, NAME, ByDigest(D3)), Already(9)),
        ("canary", lambda s: decide.rollback(s, NAME, ByDigest(D1)), RolledBack(NAME, D2, D1)),
        # Taking back for good.
        ("published", lambda s: decide.revoke(s, ByDigest(D2), "bad"), Revoked(NAME, D2, None)),
        ("revoked", lambda s: decide.revoke(s, ByDigest(D2), "bad"), Already(7)),
        ("retired", lambda s: decide.revoke(s, ByDigest(D2), "bad"), Revoked(NAME, D2, None)),
        ("three", lambda s: decide.revoke(s, ByDigest(D3), "bad"), Revoked(NAME, D3, D2)),
        ("three", lambda s: decide.revoke(s, ByDigest(D2), "bad"), Revoked(NAME, D2, None)),
        ("middle revoked", lambda s: decide.revoke(s, ByDigest(D3), "bad"), Revoked(NAME, D3, D1)),
        ("stable", lambda s: decide.revoke(s, ByDigest(D1), "bad"), Revoked(NAME, D1, None)),
        (
            "canary",
            lambda s: decide.revoke(s, ref(f"{NAME}@canary"), "bad"),
            Revoked(NAME, D2, None),
        ),
        (
            "there and back",
            lambda s: decide.revoke(s, ByDigest(D1), "bad"),
            Revoked(NAME, D1, None),
        ),
        # Not needed any more.
        ("published", lambda s: decide.retire(s, ByDigest(D2)), Retired(NAME, D2)),
        ("three", lambda s: decide.retire(s, ByDigest(D1)), Retired(NAME, D1)),
        ("retired", lambda s: decide.retire(s, ByDigest(D2)), Already(7)),
        ("unaliased", lambda s: decide.retire(s, ByDigest(D2)), Retired(NAME, D2)),
        # Aliases.
        ("published", lambda s: decide.alias(s, "next", ByDigest(D2)), Aliased(NAME, "next", D2)),
        ("alias", lambda s: decide.alias(s, "next", ref(f"{NAME}@next")), Already(7)),
        ("alias", lambda s: decide.alias(s, "next", ByDigest(D3)), Aliased(NAME, "next", D3)),
        ("alias", lambda s: decide.unalias(s, NAME, "next"), Aliased(NAME, "next", None)),
        ("unaliased", lambda s: decide.unalias(s, NAME, "next"), Already(8)),
        ("unaliased", lambda s: decide.alias(s, "next", ByDigest(D2)), Aliased(NAME, "next", D2)),
    ]
    for row, (name, command, expected) in enumerate(table):
        assert command(situation(name)) == expected, f"row {row}, {name}"


def wide(length: int = 3) -> VersionFacts:
    """A version that attaches to a layer the base does not have, or is too long for it."""
    geometry = Geometry({Site.DECODER: {9: LayerGeometry(2, 4, 4)}})
    return replace(V4, geometry=geometry) if length == 3 else replace(V4, length=length)


def test_each_refusal_has_its_code() -> None:
    other_tokenizer = replace(BASE.ref, tokenizer=Digest.of(b"other words"))
    upgrade = replace(BASE, ref=replace(BASE.ref, fingerprint=Digest.of(b"new weights")))
    table: list[tuple[str, Command, type[ForewordError], str]] = [
        ("published", lambda s: decide.declare_base(s, upgrade), Conflict, "registry.base_taken"),
        ("published", lambda s: decide.withdraw_base(s, "none"), NotFound, "registry.base_unknown"),
        ("canary", lambda s: decide.withdraw_base(s, BASE.id), ForewordError, "registry.base_in_use"),
        # Publishing.
        ("published", lambda s: decide.publish(s, replace(V3, digest=D4), ()), Conflict,
         "registry.version_taken"),
        ("published", lambda s: decide.publish(s, facts("2.5.0"), ()), ForewordError,
         "registry.version_not_newer"),
        ("published", lambda s: decide.publish(s, facts("3.0.0-rc.1"), ()), ForewordError,
         "registry.version_not_newer"),
        ("published", lambda s: decide.publish(s, facts("3.0.0+build"), ()), ForewordError,
         "registry.version_not_newer"),
        ("revoked", lambda s: decide.publish(s, V2, ()), ForewordError, "registry.revoked"),
        ("retired", lambda s: decide.publish(s, V2, ()), ForewordError, "registry.retired"),
        ("empty", lambda s: decide.publish(s, V1, ()), CompatibilityError, "base.fingerprint"),
        ("withdrawn", lambda s: decide.publish(s, V4, ()), CompatibilityError, "base.fingerprint"),
        ("published", lambda s: decide.publish(s, replace(V4, base=other_tokenizer), ()),
         CompatibilityError, "base.tokenizer"),
        ("published", lambda s: decide.publish(s, wide(), ()), CompatibilityError, "base.geometry"),
        ("published", lambda s: decide.publish(s, wide(64), ()), CompatibilityError, "base.context"),
        # Saying something about a version.
        ("published", lambda s: decide.attest(s, UNKNOWN, claim()), NotFound,
         "registry.digest_unknown"),
        ("revoked", lambda s: decide.attest(s, D2, claim()), ForewordError, "registry.revoked"),
        ("retired", lambda s: decide.approve(s, ByDigest(D2), "ana"), ForewordError,
         "registry.retired"),
        # Releasing.
        ("published", lambda s: decide.release(s, ByDigest(D1), 0.5, 0), ForewordError,
         "registry.no_stable"),
        ("published", lambda s: decide.release(s, ByDigest(D1), 1.5, 0), UsageError, "release.share"),
        ("published", lambda s: decide.release(s, ByDigest(D1), float("nan"), 0), UsageError,
         "release.share"),
        ("published", lambda s: decide.release(s, ref(NAME), 1, 0), NotFound,
         "registry.not_released"),
        ("published", lambda s: decide.release(s, ref(f"{NAME}@9.0.0"), 1, 0), NotFound,
         "registry.version_unknown"),
        ("published", lambda s: decide.release(s, ref("acme/nobody@1.0.0"), 1, 0), NotFound,
         "registry.name_unknown"),
        ("published", lambda s: decide.release(s, ref(f"{NAME}@next"), 1, 0), NotFound,
         "registry.alias_unknown"),
        ("stable", lambda s: decide.release(s, ref(f"{NAME}@canary"), 1, 0), NotFound,
         "registry.no_canary"),
        ("stable", lambda s: decide.release(s, ByDigest(D1), 0.5, 0), ForewordError,
         "registry.is_stable"),
        ("canary", lambda s: decide.release(s, ByDigest(D3), 0.5, 0), ForewordError,
         "registry.canary_running"),
        ("canary", lambda s: decide.release(s, ByDigest(D3), 1, 0), ForewordError,
         "registry.canary_running"),
        ("canary", lambda s: decide.release(s, ByDigest(D1), 1, 0), ForewordError,
         "registry.canary_running"),
        ("revoked", lambda s: decide.release(s, ByDigest(D2), 1, 0), ForewordError,
         "registry.revoked"),
        ("withdrawn", lambda s: decide.release(s, ByDigest(D1), 1, 0), CompatibilityError,
         "base.fingerprint"),
        ("published", lambda s: decide.release(s, ByDigest(D1), 1, 1), ForewordError,
         "registry.not_approved"),
        # Shifting and rolling back.
        ("stable", lambda s: decide.shift(s, NAME, 0.5), ForewordError, "registry.no_canary"),
        ("promoted", lambda s: decide.shift(s, NAME, 0.5), ForewordError, "registry.no_canary"),
        ("published", lambda s: decide.shift(s, NAME, 0.5), NotFound, "registry.not_released"),
        ("canary", lambda s: decide.shift(s, NAME, -0.1), UsageError, "release.share"),
        ("published", lambda s: decide.rollback(s, NAME), NotFound, "registry.not_released"),
        ("stable", lambda s: decide.rollback(s, NAME), ForewordError, "registry.no_previous"),
        ("there and back", lambda s: decide.rollback(s, NAME), ForewordError,
         "registry.no_previous"),
        ("only revoked before", lambda s: decide.rollback(s, NAME), ForewordError,
         "registry.no_previous"),
        ("stable", lambda s: decide.rollback(s, NAME, ByDigest(D3)), ForewordError,
         "registry.never_stable"),
        ("stable", lambda s: decide.rollback(s, NAME, ByDigest(ALIEN.digest)), ForewordError,
         "registry.never_stable"),
        ("middle revoked", lambda s: decide.rollback(s, NAME, ByDigest(D2)), ForewordError,
         "registry.revoked"),
        # Taking back for good.
        ("published", lambda s: decide.revoke(s, ByDigest(D1), ""), UsageError, "registry.reason"),
        ("published", lambda s: decide.revoke(s, ByDigest(UNKNOWN), "bad"), NotFound,
         "registry.digest_unknown"),
        ("stable", lambda s: decide.retire(s, ByDigest(D1)), ForewordError, "registry.in_use"),
        ("canary", lambda s: decide.retire(s, ByDigest(D2)), ForewordError, "registry.in_use"),
        ("alias", lambda s: decide.retire(s, ByDigest(D2)), ForewordError, "registry.in_use"),
        ("revoked", lambda s: decide.retire(s, ByDigest(D2)), ForewordError, "registry.revoked"),
        # Aliases.
        ("published", lambda s: decide.alias(s, "stable", ByDigest(D1)), UsageError, "alias.reserved"),
        ("published", lambda s: decide.unalias(s, NAME, "canary"), UsageError, "alias.reserved"),
        ("published", lambda s: decide.unalias(s, NAME, "next"), NotFound, "registry.alias_unknown"),
        ("revoked", lambda s: decide.alias(s, "next", ByDigest(D2)), ForewordError,
         "registry.revoked"),
    ]  # fmt: skip
    for row, (name, command, kind, code) in enumerate(table):
        with pytest.raises(kind) as caught:
            command(situation(name))
        assert caught.value.code == code, f"row {row}, {name}: {caught.value}"
        assert str(caught.value).isprintable()


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(NotFound, match=r"did you mean 'acme/support'\?"):
        decide.shift(situation("canary"), "acme/suport", 0.5)


def test_approvals_are_counted_by_actor_and_without_the_publisher() -> None:
    log = Log(BaseDeclared(BASE))
    log.add(Published(V1, (claim(),)), by("publisher"))

    def is_released(approvals: int) -> bool:
        with contextlib.suppress(RegistryError):
            return isinstance(decide.release(log.state, ByDigest(D1), 1, approvals), Released)
        return False

    assert [is_released(n) for n in (0, 1)] == [True, False]
    for who, enough in (("publisher", 0), ("ana", 1), ("bob", 2)):
        log.add(Approved(NAME, D1), by(who))
        assert is_released(enough)
        assert not is_released(enough + 1)
        assert decide.approve(log.state, ByDigest(D1), who) == Already(log.head.seq)


def test_a_version_for_two_bases_does_not_keep_either() -> None:
    twin = replace(BASE, ref=replace(BASE.ref, id="twin"))
    log = Log(BaseDeclared(BASE), BaseDeclared(twin), Published(V1, ()), Released(NAME, D1, 1))
    assert decide.withdraw_base(log.state, BASE.id) == BaseWithdrawn(BASE.id)
    log.add(BaseWithdrawn(BASE.id))
    with pytest.raises(ForewordError) as caught:
        decide.withdraw_base(log.state, "twin")
    assert caught.value.code == "registry.base_in_use"
    assert f"{NAME} 1.0.0" in str(caught.value)
