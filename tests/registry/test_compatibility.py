"""Which versions fit which bases: the answers that loading gives, without loading."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foreword.artifact import Digest, Geometry, LayerGeometry, Site
from foreword.errors import CompatibilityError
from foreword.registry.compatibility import matrix, misfit, require_base, what_breaks
from foreword.registry.entries import (
    BaseDeclared,
    BaseWithdrawn,
    Published,
    Released,
    Retired,
    Revoked,
)
from foreword.registry.facts import Base
from tests.artifact.samples import GEOMETRY
from tests.registry.samples import BASE, NAME, OTHER_BASE, Log, facts

V1, V2, V3 = (facts(f"{number}.0.0") for number in (1, 2, 3))
MORE_LAYERS = Geometry({**GEOMETRY.sites, Site.ENCODER: {0: LayerGeometry(1, 1, 1)}})
FEWER_LAYERS = Geometry({Site.DECODER: GEOMETRY.sites[Site.DECODER]})


def changed(**changes: object) -> Base:
    return replace(BASE, ref=replace(BASE.ref, **changes))


@pytest.mark.parametrize(
    ("base", "code"),
    [
        (BASE, None),
        (changed(id="another name"), None),
        (changed(tokenizer=None), None),
        (changed(context=None), None),
        (changed(context=4), None),
        (replace(BASE, geometry=MORE_LAYERS), None),
        (changed(fingerprint=Digest.of(b"other")), "base.fingerprint"),
        (changed(fingerprint=Digest.of(b"other"), tokenizer=None, context=1), "base.fingerprint"),
        (changed(tokenizer=Digest.of(b"other")), "base.tokenizer"),
        (replace(BASE, geometry=FEWER_LAYERS), "base.geometry"),
        (changed(context=3), "base.context"),
    ],
)
def test_the_first_fact_that_differs_is_named(base: Base, code: str | None) -> None:
    found = misfit(V1, base)
    assert (found.code if found else None) == code


def test_a_prefix_without_a_tokenizer_fits_only_a_base_without_one() -> None:
    facts_without = replace(V1, base=replace(V1.base, tokenizer=None))
    assert misfit(facts_without, changed(tokenizer=None)) is None
    found = misfit(facts_without, BASE)
    assert found is not None
    assert found.code == "base.tokenizer"


def test_one_base_that_fits_is_enough() -> None:
    assert require_base(V1, [OTHER_BASE, changed(context=1), BASE]) == BASE


@pytest.mark.parametrize(
    ("bases", "code"),
    [
        ([], "base.fingerprint"),
        ([OTHER_BASE], "base.fingerprint"),
        ([OTHER_BASE, changed(tokenizer=Digest.of(b"x"))], "base.tokenizer"),
        ([changed(context=2), OTHER_BASE], "base.context"),
    ],
)
def test_the_reason_is_that_of_the_base_that_comes_nearest(bases: list[Base], code: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        require_base(V1, bases)
    assert caught.value.code == code


def test_the_matrix_holds_live_versions_against_declared_bases() -> None:
    alien = facts("1.0.0", name="acme/alien", base=OTHER_BASE.ref)
    log = Log(BaseDeclared(BASE), BaseDeclared(OTHER_BASE))
    for each in (V1, V2, V3, alien):
        log.add(Published(each, ()))
    log.add(Revoked(NAME, V1.digest, None))
    log.add(Retired(NAME, V2.digest))
    found = matrix(log.state)
    assert [base.id for base in found.bases] == [OTHER_BASE.id, BASE.id]
    rows = {row.version.digest: [m and m.code for m in row.misfits] for row in found.rows}
    assert rows == {
        alien.digest: [None, "base.fingerprint"],
        V3.digest: ["base.fingerprint", None],
    }
    assert [row.version.name for row in matrix(log.state, "acme/a").rows] == ["acme/alien"]
    log.add(BaseWithdrawn(OTHER_BASE.id))
    assert [row.fits_any for row in matrix(log.state).rows] == [False, True]


def test_an_upgrade_breaks_what_fits_now_and_would_not_then() -> None:
    alien = facts("1.0.0", name="acme/alien", base=OTHER_BASE.ref)
    log = Log(BaseDeclared(BASE), BaseDeclared(OTHER_BASE))
    for each in (V1, V2, V3, alien):
        log.add(Published(each, ()))
    log.add(Released(NAME, V2.digest, 1))
    log.add(Released(NAME, V3.digest, 0.1))
    broken = what_breaks(log.state, BASE, changed(fingerprint=Digest.of(b"new weights")))
    assert [(each.version.digest, each.serving) for each in broken] == [
        (V2.digest, True), (V3.digest, True), (V1.digest, False),
    ]  # fmt: skip
    assert {each.misfit.code for each in broken} == {"base.fingerprint"}
    assert what_breaks(log.state, BASE, changed(id="same weights, new name")) == ()
    new_words = what_breaks(log.state, BASE, changed(tokenizer=Digest.of(b"new words")))
    assert {each.misfit.code for each in new_words} == {"base.tokenizer"}
