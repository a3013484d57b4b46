"""Statements: what a signature says, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact import canonical
from foreword.errors import ArtifactError, TrustError, UsageError
from foreword.signing.statement import SIGN, VERDICTS, Finding, Statement
from foreword.signing.times import moment, stamp
from tests.artifact.samples import sample
from tests.signing.made import NOW

FINDING = Finding("evaluation", "pass", {"bleu": 60.1, "rows": [1, 2]})
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcé"), inner, max_size=3),
    max_leaves=8,
)


def test_a_signature_is_an_in_toto_statement_about_both_files() -> None:
    artifact = sample()
    assert json.loads(Statement.about(artifact, NOW).to_bytes()) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "manifest.json", "digest": {"sha256": artifact.digest.hex}},
            {
                "name": "prefix.safetensors",
                "digest": {"sha256": artifact.manifest.tensors.sha256.hex},
            },
        ],
        "predicateType": "urn:foreword:signature:v1",
        "predicate": {"name": "acme/support", "version": "1.2.3", "signed": "2026-06-01T12:00:00Z"},
    }


@given(st.dictionaries(st.text("abc"), JSON, max_size=3), st.sampled_from(VERDICTS))
def test_an_attestation_comes_back_as_it_was(body: dict[str, Any], verdict: Any) -> None:
    for finding in (None, Finding("training", verdict, body)):
        statement = Statement.about(sample(), NOW, finding)
        again = Statement.from_bytes(statement.to_bytes())
        assert again == statement
        assert again.says == ("training" if finding else SIGN)


def edited(*path: str | int, value: Any = None, finding: Finding | None = None) -> bytes:
    """A good statement with one place replaced, or left out."""
    whole: Any = json.loads(Statement.about(sample(), NOW, finding).to_bytes())
    *outer, last = path
    place = whole
    for step in outer:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return canonical.encode(whole)


def attestation(*path: str | int, value: Any = None) -> bytes:
    return edited(*path, value=value, finding=FINDING)


GOOD = Statement.about(sample(), NOW).to_bytes()
REFUSED: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"signed", "trust.statement"),
    "another spelling": (GOOD.replace(b",", b", ", 1), "trust.statement"),
    "cut off": (GOOD[:-1], "trust.statement"),
    "an older frame": (
        edited("_type", value="https://in-toto.io/Statement/v0.1"), "trust.statement",
    ),
    "another predicate": (
        edited("predicateType", value="https://slsa.dev/provenance/v1"), "trust.predicate",
    ),
    "a signature called an attestation": (
        edited("predicateType", value="urn:foreword:attestation:v1"), "trust.statement",
    ),
    "an attestation called a signature": (
        attestation("predicateType", value="urn:foreword:signature:v1"), "trust.statement",
    ),
    "one subject": (edited("subject", 1), "trust.statement"),
    "three subjects": (
        edited("subject", value=[*json.loads(GOOD)["subject"], {}]), "trust.statement",
    ),
    "subjects the other way round": (
        edited("subject", value=json.loads(GOOD)["subject"][::-1]), "trust.statement",
    ),
    "a digest in capitals": (
        edited("subject", 0, "digest", "sha256", value="A" * 64), "trust.statement",
    ),
    "a weaker digest beside it": (
        edited("subject", 0, "digest", "sha1", value="0" * 40), "trust.statement",
    ),
    "an annotated subject": (edited("subject", 0, "uri", value="x"), "trust.statement"),
    "no name": (edited("predicate", "name"), "trust.statement"),
    "a name that is none": (edited("predicate", "name", value="../x"), "trust.statement"),
    "a version that is none": (edited("predicate", "version", value="1"), "trust.statement"),
    "a day that does not exist": (
        edited("predicate", "signed", value="2026-02-30T12:00:00Z"), "trust.statement",
    ),
    "a time in another zone": (
        edited("predicate", "signed", value="2026-02-03T12:00:00+01:00"), "trust.statement",
    ),
    "a field nobody knows": (edited("predicate", "expires", value="never"), "trust.statement"),
    "a verdict nobody knows": (
        attestation("predicate", "verdict", value="ok"), "trust.statement",
    ),
    "a kind that is a signature": (attestation("predicate", "kind", value=SIGN), "trust.statement"),
    "a kind that is no word": (attestation("predicate", "kind", value="A b"), "trust.statement"),
    "evidence that is no object": (
        attestation("predicate", "body", value=[1]), "trust.statement",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_only_what_we_write_is_read(case: str) -> None:
    data, code = REFUSED[case]
    with pytest.raises(TrustError) as caught:
        Statement.from_bytes(data)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: Finding(SIGN, "pass", {}), "attestation.kind"),
        (lambda: Finding("", "pass", {}), "attestation.kind"),
        (lambda: Finding("Review", "pass", {}), "attestation.kind"),
        (lambda: Finding("review\n", "pass", {}), "attestation.kind"),
        (lambda: Finding("review", "maybe", {}), "attestation.verdict"),  # type: ignore[arg-type]
    ],
)
def test_a_finding_has_a_kind_and_a_verdict(make: Callable[[], Finding], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert caught.value.code == code


def test_evidence_that_json_cannot_hold_is_not_signed() -> None:
    finding = Finding("review", "pass", {"loss": float("nan")})
    with pytest.raises(ArtifactError) as caught:
        Statement.about(sample(), NOW, finding).to_bytes()
    assert caught.value.code == "json.value"


def test_a_moment_has_one_text() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    assert stamp(datetime(2026, 1, 1, 3, 0, 0, 999_999, tzinfo=east)) == "2025-12-31T21:30:00Z"
    assert moment("2025-12-31T21:30:00Z") == datetime(2025, 12, 31, 21, 30, tzinfo=UTC)
    assert stamp(datetime(7, 1, 1, tzinfo=UTC)) == "0007-01-01T00:00:00Z"
    with pytest.raises(ValueError, match="time zone"):
        stamp(datetime(2026, 1, 1))  # noqa: DTZ001
    for text in ("2026-1-01T00:00:00Z", "٢٠٢٦-01-01T00:00:00Z", "2026-01-01T24:00:00Z",
                 "2026-01-01T00:00:00Z\n", "2026-01-01T00:00:60Z"):  # fmt: skip
        with pytest.raises(ValueError, match=r"time|match|must be"):
            moment(text)


@given(st.datetimes(timezones=st.timezones()))
def test_text_and_moment_agree(when: datetime) -> None:
    try:
        text = stamp(when)
    except OverflowError:  # the first or last day there is, in another time zone
        return
    assert abs(moment(text) - when) < timedelta(seconds=1)
