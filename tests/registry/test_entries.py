"""The journal's lines: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact import BaseRef, Digest, Geometry, LayerGeometry, Site, TensorFile
from foreword.artifact.canonical import encode
from foreword.artifact.fields import Fields
from foreword.errors import ArtifactError, RegistryError, UsageError
from foreword.registry.entries import (
    EVENTS,
    GENESIS,
    Aliased,
    Approved,
    Attested,
    BaseDeclared,
    BaseWithdrawn,
    By,
    Drifted,
    Entry,
    Event,
    Published,
    Released,
    Retired,
    Revoked,
    RolledBack,
    Shifted,
)
from foreword.registry.facts import Base, Claim, Lineage, VersionFacts, check_id, facts_of
from foreword.registry.spans import geometry_of, spans_of
from tests.artifact.samples import GEOMETRY, sample
from tests.registry.samples import BASE, NAME, NOW, by, claim, facts

DIGESTS = st.binary(max_size=4).map(Digest.of)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
NAMES = st.sampled_from(["support", "acme/support", "a/b"])
VERSIONS = st.sampled_from(["0.0.1", "1.2.3-rc.1+b", "10.0.0"])
SHAPES = st.builds(LayerGeometry, st.integers(1, 8), st.integers(1, 8), st.integers(1, 8))
LAYERS = st.dictionaries(st.integers(0, 12), SHAPES, min_size=1)
GEOMETRIES = st.dictionaries(st.sampled_from(Site), LAYERS, min_size=1).map(Geometry)
REFS = st.builds(
    BaseRef, TEXTS, DIGESTS, st.none() | DIGESTS, TEXTS, st.none() | st.integers(1, 1 << 40)
)
BASES = st.builds(
    Base,
    st.builds(replace, REFS, id=st.sampled_from(["demo", "org/model", "/models/a b"])),
    GEOMETRIES,
)
CLAIMS = st.one_of(
    st.builds(Claim, DIGESTS, st.just("sign"), st.none(), st.tuples(TEXTS)),
    st.builds(
        Claim,
        DIGESTS,
        st.sampled_from(["review", "evaluation"]),
        st.sampled_from(["pass", "fail", "insufficient"]),
        st.lists(TEXTS, max_size=3).map(tuple),
    ),
)
FACTS = st.builds(
    VersionFacts, NAMES, VERSIONS, DIGESTS, st.just("2026-01-31T12:00:00Z"), REFS, GEOMETRIES,
    st.integers(1, 65_536), st.sampled_from(["float32", "bfloat16", "float16"]),
    st.builds(TensorFile, DIGESTS, st.integers(1, 4 << 30)),
    st.builds(Lineage, st.none() | DIGESTS, st.none() | TEXTS, st.none() | DIGESTS),
)  # fmt: skip
SHARES = st.floats(0, 1)
EVENT = st.one_of(
    st.builds(BaseDeclared, BASES),
    st.builds(BaseWithdrawn, TEXTS),
    st.builds(Published, FACTS, st.lists(CLAIMS, max_size=3).map(tuple)),
    st.builds(Attested, NAMES, DIGESTS, CLAIMS),
    st.builds(Approved, NAMES, DIGESTS),
    st.builds(Released, NAMES, DIGESTS, SHARES),
    st.builds(Shifted, NAMES, DIGESTS, SHARES),
    st.builds(RolledBack, NAMES, DIGESTS, DIGESTS),
    st.builds(Revoked, NAMES, DIGESTS, st.none() | DIGESTS),
    st.builds(Retired, NAMES, DIGESTS),
    st.builds(Aliased, NAMES, st.sampled_from(["next", "beta"]), st.none() | DIGESTS),
    st.builds(
        Drifted, NAMES, DIGESTS, st.sampled_from(["inputs.mmd", "length"]), st.floats(-9, 9), SHARES,
        DIGESTS, DIGESTS,
    ),
)  # fmt: skip


def columns(entry: Entry) -> dict[str, Any]:
    """An entry as a database gives it back."""
    return {
        "seq": entry.seq, "previous": entry.previous.hex, "time": entry.time, "actor": entry.actor,
        "reason": entry.reason, "kind": entry.kind, "body": entry.body, "hash": entry.hash.hex,
    }  # fmt: skip


@given(EVENT)
def test_every_event_is_read_back_as_it_was_written(event: Event) -> None:
    entry = Entry.after(GENESIS, event, by())
    assert Entry.read(GENESIS, **columns(entry)) == entry
    assert entry.event == event
    assert json.loads(entry.body) == event.to_json()


def test_every_kind_of_event_is_in_the_vocabulary() -> None:
    assert set(EVENTS.values()) == set(Event.__args__)  # type: ignore[attr-defined]
    assert len({event.kind for event in EVENTS.values()}) == len(EVENTS)


@given(EVENT)
def test_an_event_with_a_field_too_many_or_too_few_is_refused(event: Event) -> None:
    good = event.to_json()
    for bad in (
        {**good, "extra": 1},
        *({k: v for k, v in good.items() if k != name} for name in good),
    ):
        with pytest.raises(ArtifactError):
            type(event).from_json(Fields(bad, "event"))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Acme"}, {"version": "1"}, {"digest": "0" * 64}, {"length": 0}, {"length": "3"},
        {"dtype": "int8"}, {"geometry": {}}, {"geometry": {"decoder": []}},
        {"geometry": {"decoder": [0, 1, 2, 4]}}, {"geometry": {"decoder": [1, 0, 2, 4, 4]}},
        {"geometry": {"decoder": [0, 1, 2, 4, 4, 1, 2, 2, 4, 4]}},
        {"geometry": {"decoder": [0, 9999, 2, 4, 4]}}, {"geometry": {"decoder": [0, 1, 0, 4, 4]}},
        {"geometry": {"other": [0, 1, 2, 4, 4]}}, {"tensors": {"sha256": "x", "size": 1}},
    ],
)  # fmt: skip
def test_facts_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    value = Published(facts(), (claim(),)).to_json()
    value["facts"] |= change
    with pytest.raises(ArtifactError):
        Published.from_json(Fields(value, "published"))


@pytest.mark.parametrize(
    ("kind", "verdict"), [("sign", "pass"), ("review", None), ("review", "ok")]
)
def test_only_attestations_have_a_verdict(kind: str, verdict: str | None) -> None:
    value = Published(facts(), (claim(),)).to_json()
    value["claims"][0] |= {"kind": kind, "verdict": verdict}
    with pytest.raises(ArtifactError):
        Published.from_json(Fields(value, "published"))


@pytest.mark.parametrize("share", [-0.1, 1.1, "0.5", None, True, float("nan")])
def test_a_share_is_a_number_from_0_to_1(share: object) -> None:
    value = {"name": NAME, "digest": str(facts().digest), "share": share}
    with pytest.raises(ArtifactError):
        Released.from_json(Fields(value, "released"))


@given(GEOMETRIES)
def test_a_geometry_survives_its_short_form(geometry: Geometry) -> None:
    short = json.loads(encode(spans_of(geometry)))
    assert geometry_of(Fields(short, "geometry")) == geometry


def test_alike_layers_take_one_span() -> None:
    layer = LayerGeometry(8, 128, 128)
    assert spans_of(Geometry({Site.DECODER: dict.fromkeys(range(32), layer)})) == {
        "decoder": [0, 31, 8, 128, 128]
    }


# The chain.

FIRST = Entry.after(GENESIS, Approved(NAME, facts().digest), by())
SECOND = Entry.after(FIRST.head, Retired(NAME, facts().digest), by(seconds=1))


def test_the_hash_is_the_one_that_was_written_down() -> None:
    # Journals of every version of Foreword must stay readable; this was computed once.
    event = Aliased("acme/support", "next", None)
    assert (
        Entry.after(GENESIS, event, By("ana", NOW, "why")).hash.hex
        == "55c20cc1cdeb98583e55f6e186b21f4c781876ec7a4a8881bcbc87793f8d5666"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 1}, {"seq": 3}, {"seq": "2"}, {"seq": None}, {"previous": "0" * 64}, {"previous": None},
        {"time": "2026-06-01T12:00:02Z"}, {"time": None}, {"actor": "eve"}, {"actor": b"ana"},
        {"reason": "another"}, {"reason": "a reason "}, {"kind": "approved"}, {"kind": None},
        {"body": SECOND.body.replace("support", "suppert")}, {"body": SECOND.body + " "}, {"body": 7},
        {"hash": "0" * 64}, {"hash": SECOND.hash.hex.upper()}, {"hash": None},
    ],
)  # fmt: skip
def test_a_changed_line_breaks_the_chain(change: dict[str, Any]) -> None:
    assert Entry.read(FIRST.head, **columns(SECOND)) == SECOND
    with pytest.raises(RegistryError) as caught:
        Entry.read(FIRST.head, **{**columns(SECOND), **change})
    assert caught.value.code == "registry.chain"


def test_a_line_fits_nowhere_else() -> None:
    other = Entry.after(GENESIS, Approved(NAME, facts().digest), by("eve"))
    for head in (GENESIS, other.head, SECOND.head, replace(FIRST.head, seq=5)):
        with pytest.raises(RegistryError) as caught:
            Entry.read(head, **columns(SECOND))
        assert caught.value.code == "registry.chain"


def test_moving_text_from_one_field_to_the_next_changes_the_hash() -> None:
    event = Approved(NAME, facts().digest)
    a = Entry.after(GENESIS, event, By("ab", NOW, "c"))
    b = Entry.after(GENESIS, event, By("a", NOW, "bc"))
    assert a.hash != b.hash


def test_what_a_newer_foreword_wrote_is_not_skipped() -> None:
    class Renamed(Approved):
        kind = "renamed"

    entry = Entry.after(GENESIS, Renamed(NAME, facts().digest), by())
    with pytest.raises(RegistryError, match="newer") as caught:
        Entry.read(GENESIS, **columns(entry))
    assert caught.value.code == "registry.entry"


def test_a_whole_chain_with_a_body_that_is_no_event_is_refused() -> None:
    class Odd(Approved):
        def to_json(self) -> dict[str, Any]:
            return {"name": NAME}

    with pytest.raises(RegistryError) as caught:
        Entry.read(GENESIS, **columns(Entry.after(GENESIS, Odd(NAME, facts().digest), by())))
    assert caught.value.code == "registry.entry"


@pytest.mark.parametrize(
    "text", ["", "a\nb", "a\x00b", "\x1b[31m", "a\u202eb", "\ud800", "x" * 201]
)
def test_an_actor_is_one_printable_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        By(text, NOW)
    assert caught.value.code == "registry.actor"
    assert str(caught.value).isprintable()
    if text and len(text) < 200:
        with pytest.raises(UsageError) as caught:
            By("ana", NOW, text)
        assert caught.value.code == "registry.reason"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        By("ana", datetime(2026, 1, 1))  # noqa: DTZ001


# Facts.


def test_facts_are_those_of_the_manifest() -> None:
    manifest = sample().manifest
    found = facts_of(manifest, sample().digest)
    for field in fields(VersionFacts):
        if field.name not in ("digest", "lineage"):
            assert getattr(found, field.name) == getattr(manifest, field.name)


def test_lineage_is_what_the_training_record_says() -> None:
    data, parent = Digest.of(b"rows"), Digest.of(b"parent")
    training = {
        "data": {"digest": str(data)},
        "software": {"foreword": "0.1.0"},
        "parent": str(parent),
    }
    manifest = sample(training=training).manifest
    assert facts_of(manifest, parent).lineage == Lineage(data, "0.1.0", parent)


@pytest.mark.parametrize(
    "training",
    [
        {}, {"data": None, "software": [], "parent": 7}, {"data": "x", "parent": "sha256:x"},
        {"data": {"digest": ["a"]}, "software": {"foreword": {"a": 1}}, "parent": {}},
        {"software": {"foreword": "\x1b[2J"}},
    ],
)  # fmt: skip
def test_a_training_record_of_another_form_says_nothing(training: dict[str, Any]) -> None:
    manifest = sample(training=training).manifest
    assert facts_of(manifest, sample().digest).lineage == Lineage(None, None, None)


@pytest.mark.parametrize("text", ["", " a", "a ", "a\nb", "\x1b[31m", "x" * 201])
def test_a_base_has_a_printable_id(text: str) -> None:
    with pytest.raises(ArtifactError):
        check_id(text)
    with pytest.raises(ArtifactError):
        Base(replace(BASE.ref, id=text), GEOMETRY)
