"""Nothing gets in, and nothing gets traffic, that the policy does not vouch for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from foreword.artifact import Artifact, Digest
from foreword.errors import (
    CompatibilityError,
    Conflict,
    ForewordError,
    NotFound,
    RegistryError,
    StorageError,
    TrustError,
    UsageError,
)
from foreword.registry.directory import DirectoryBlobs
from foreword.registry.entries import Attested, Published
from foreword.registry.registry import Registry
from foreword.signing.policy import TrustPolicy
from foreword.signing.trusted import TrustedKey
from tests.registry.samples import (
    BASE,
    NAME,
    NOW,
    POLICY,
    attested,
    by,
    give,
    key,
    policy,
    publish,
    sample,
    signed,
)

ANA, BOB, EVE = key("ana"), key("bob"), key("eve")
GATED = policy(ANA, BOB, require=("evaluation",))
ARTIFACT = sample(version="1.0.0")


def is_untouched(registry: Registry) -> bool:
    return not list(registry.log(NAME)) and not list(registry.blobs.stored())


# Publishing.


@pytest.mark.parametrize(
    ("envelopes", "trust", "code"),
    [
        ((), POLICY, "trust.unsigned"),
        ((signed(ARTIFACT, EVE),), POLICY, "trust.unknown_key"),
        ((signed(sample(version="1.0.1"), ANA),), POLICY, "trust.subject"),
        ((signed(ARTIFACT, ANA)[:-1],), POLICY, "trust.envelope"),
        ((signed(ARTIFACT, ANA),), policy(ANA, BOB, threshold=2), "trust.threshold"),
        ((signed(ARTIFACT, ANA),), GATED, "trust.attestation_missing"),
        ((signed(ARTIFACT, ANA), attested(ARTIFACT, ANA, verdict="fail")), GATED,
         "trust.attestation_verdict"),
        ((signed(ARTIFACT, ANA), attested(ARTIFACT, EVE)), GATED, "trust.attestation_missing"),
        ((signed(ARTIFACT, ANA),), policy(TrustedKey(ANA.public, "ana", ("beta",))), "trust.tenant"),
        ((signed(ARTIFACT, ANA),), policy(TrustedKey(ANA.public, "ana", status="retiring")),
         "trust.key_retiring"),
        ((signed(ARTIFACT, ANA),), POLICY.with_revoked(ARTIFACT.digest, "bad"),
         "trust.digest_revoked"),
        ((signed(ARTIFACT, ANA),), replace(POLICY, floors={NAME: "1.0.1"}), "trust.floor"),
        ((signed(ARTIFACT, ANA),), replace(POLICY, expires=NOW), "trust.policy_expired"),
    ],
)  # fmt: skip
def test_what_is_not_trusted_leaves_no_trace(
    local: Registry, envelopes: tuple[bytes, ...], trust: TrustPolicy, code: str
) -> None:
    local.declare_base(BASE, by=by())
    with pytest.raises(TrustError) as caught:
        give(local, ARTIFACT, *envelopes, trust=trust)
    assert caught.value.code == code
    assert is_untouched(local)


def test_other_tensors_than_those_that_were_signed_leave_no_trace(local: Registry) -> None:
    local.declare_base(BASE, by=by())
    other = sample(version="1.0.0", training={})
    mixed = replace(ARTIFACT, tensor_bytes=other.tensor_bytes[:-1] + b"\0")
    with pytest.raises(TrustError) as caught:
        give(local, mixed, signed(ARTIFACT, ANA))
    assert caught.value.code == "trust.tensors"
    assert is_untouched(local)


def test_a_base_that_nobody_declared_is_refused_before_a_byte_is_kept(local: Registry) -> None:
    with pytest.raises(CompatibilityError) as caught:
        give(local, ARTIFACT, signed(ARTIFACT, ANA))
    assert caught.value.code == "base.fingerprint"
    assert is_untouched(local)


def test_a_taken_or_old_version_keeps_no_bytes(local: Registry) -> None:
    publish(local, "1.0.0")
    before = {blob.digest for blob in local.blobs.stored()}
    again = sample(version="1.0.0", training={"other": True})
    with pytest.raises(Conflict) as caught:
        give(local, again, signed(again, ANA))
    assert caught.value.code == "registry.version_taken"
    older = sample(version="0.9.0")
    with pytest.raises(RegistryError) as refused:
        give(local, older, signed(older, ANA))
    assert refused.value.code == "registry.version_not_newer"
    assert {blob.digest for blob in local.blobs.stored()} == before


def test_the_journal_says_whose_word_it_was(local: Registry) -> None:
    local.declare_base(BASE, by=by())
    envelopes = (
        signed(ARTIFACT, ANA, EVE),
        attested(ARTIFACT, BOB),
        signed(ARTIFACT, EVE),
        attested(ARTIFACT, ANA, "review"),
    )
    entry = give(local, ARTIFACT, *envelopes, envelopes[0], trust=GATED)
    assert isinstance(entry.event, Published)
    said = [(claim.kind, claim.verdict, claim.signers) for claim in entry.event.claims]
    assert said == [
        ("sign", None, (ANA.id,)),
        ("evaluation", "pass", (BOB.id,)),
        ("review", "pass", (ANA.id,)),
    ]
    # The envelope that only a stranger signed is not kept.
    stored = {blob.digest for blob in local.blobs.stored()}
    assert Digest.of(envelopes[2]) not in stored
    assert stored == set(local.state.version(ARTIFACT.digest).blobs)


def test_a_publish_that_cannot_keep_its_blobs_is_not_recorded(
    local: Registry, tmp_path: Path
) -> None:
    local.declare_base(BASE, by=by())
    local.blobs = DirectoryBlobs(tmp_path / "unmounted")
    with pytest.raises(StorageError):
        give(local, ARTIFACT, signed(ARTIFACT, ANA))
    assert list(local.log(NAME)) == []


def test_a_blob_that_vanishes_before_the_entry_is_put_again(
    local: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a collection of old blobs does to a publish that found its blob in place.
    local.declare_base(BASE, by=by())
    append = local.journal.append

    def collect_then_append(*arguments):  # type: ignore[no-untyped-def]
        for blob in list(local.blobs.stored()):
            local.blobs.delete(blob.digest)
        return append(*arguments)

    monkeypatch.setattr(local.journal, "append", collect_then_append)
    give(local, ARTIFACT, signed(ARTIFACT, ANA))
    assert local.fetch(ARTIFACT.digest, POLICY, NOW).artifact == ARTIFACT


# Attesting.


def test_a_bad_verdict_is_kept_and_stops_a_release(local: Registry) -> None:
    local.declare_base(BASE, by=by())
    give(local, ARTIFACT, signed(ARTIFACT, ANA), attested(ARTIFACT, BOB), trust=GATED)
    later = NOW + timedelta(seconds=5)
    bad = attested(ARTIFACT, BOB, verdict="fail", now=later)
    entry = local.attest(f"{NAME}@1.0.0", bad, policy=GATED, by=by(seconds=5))
    assert isinstance(entry.event, Attested)
    assert entry.event.claim.verdict == "fail"
    with pytest.raises(TrustError) as caught:
        local.release(f"{NAME}@1.0.0", policy=GATED, by=by(seconds=6))
    assert caught.value.code == "trust.attestation_verdict"
    with pytest.raises(TrustError):
        local.fetch(ARTIFACT.digest, GATED, later)
    local.fetch(ARTIFACT.digest, POLICY, later)  # who asks for no evaluation is not bound by it


def test_a_missing_attestation_can_come_later(local: Registry) -> None:
    publish(local)
    for ready in (False, True):
        if ready:
            local.attest(f"{NAME}@1.0.0", attested(ARTIFACT, BOB), policy=GATED, by=by())
            local.release(f"{NAME}@1.0.0", policy=GATED, by=by())
            continue
        with pytest.raises(TrustError) as caught:
            local.release(f"{NAME}@1.0.0", policy=GATED, by=by())
        assert caught.value.code == "trust.attestation_missing"


def test_a_second_signature_can_come_later(local: Registry) -> None:
    publish(local)
    two = policy(ANA, BOB, threshold=2)
    with pytest.raises(TrustError):
        local.fetch(ARTIFACT.digest, two, NOW)
    local.attest(str(ARTIFACT.digest), signed(ARTIFACT, BOB), policy=policy(ANA, BOB), by=by())
    assert set(local.fetch(ARTIFACT.digest, two, NOW).signers) == {ANA.id, BOB.id}


@pytest.mark.parametrize(
    ("envelope", "trust", "code"),
    [
        (attested(ARTIFACT, EVE), GATED, "trust.unknown_key"),
        (signed(ARTIFACT, EVE), GATED, "trust.unknown_key"),
        (attested(sample(version="1.0.1"), BOB), GATED, "trust.subject"),
        (attested(ARTIFACT, BOB)[:-2], GATED, "trust.envelope"),
        (attested(ARTIFACT, BOB), policy(ANA, TrustedKey(BOB.public, "bob", may=("sign",))),
         "trust.role"),
        (attested(ARTIFACT, BOB), policy(ANA, TrustedKey(BOB.public, "bob", status="retiring")),
         "trust.key_retiring"),
    ],
)  # fmt: skip
def test_a_word_that_does_not_count_is_not_kept(
    local: Registry, envelope: bytes, trust: TrustPolicy, code: str
) -> None:
    publish(local)
    before = {blob.digest for blob in local.blobs.stored()}
    with pytest.raises(TrustError) as caught:
        local.attest(f"{NAME}@1.0.0", envelope, policy=trust, by=by())
    assert caught.value.code == code
    assert {blob.digest for blob in local.blobs.stored()} == before
    assert len(list(local.log(NAME))) == 1


# Releasing and using.


def revoked_key() -> TrustPolicy:
    return policy(TrustedKey(ANA.public, "ana", status="revoked"))


def test_more_traffic_needs_trust_and_less_never_does(local: Registry) -> None:
    publish(local)
    publish(local, "2.0.0")
    local.release(f"{NAME}@1.0.0", policy=POLICY, by=by())
    local.release(f"{NAME}@2.0.0", 0.5, policy=POLICY, by=by())
    distrust = revoked_key()
    more: list[Callable[[], object]] = [
        lambda: local.release(f"{NAME}@2.0.0", 0.6, policy=distrust, by=by()),
        lambda: local.release(f"{NAME}@2.0.0", 1.0, policy=distrust, by=by()),
        lambda: local.shift(NAME, 0.6, policy=distrust, by=by()),
        lambda: local.shift(NAME, 1.0, policy=distrust, by=by()),
    ]
    for command in more:
        with pytest.raises(TrustError) as caught:
            command()
        assert caught.value.code == "trust.key_revoked"
    local.shift(NAME, 0.1, policy=distrust, by=by())
    local.rollback(NAME, by=by())


def test_going_back_needs_no_blob(local: Registry, tmp_path: Path) -> None:
    publish(local)
    publish(local, "2.0.0")
    for version in ("1.0.0", "2.0.0"):
        local.release(f"{NAME}@{version}", policy=POLICY, by=by())
    local.blobs = DirectoryBlobs(tmp_path / "unmounted")
    local.rollback(NAME, by=by())
    local.revoke(f"{NAME}@2.0.0", by=by())
    assert local.resolve(NAME).version.version == "1.0.0"


def test_a_key_that_was_revoked_since_is_noticed_when_it_is_used(local: Registry) -> None:
    publish(local)
    with pytest.raises(TrustError) as caught:
        local.fetch(ARTIFACT.digest, revoked_key(), NOW)
    assert caught.value.code == "trust.key_revoked"


def test_approvals_are_counted_where_the_registry_asks_for_them(local: Registry) -> None:
    local.approvals = 1
    publish(local, who=by("publisher"))
    local.approve(f"{NAME}@1.0.0", by=by("publisher"))
    with pytest.raises(RegistryError) as caught:
        local.release(f"{NAME}@1.0.0", policy=POLICY, by=by())
    assert caught.value.code == "registry.not_approved"
    local.approve(f"{NAME}@1.0.0", by=by("somebody else"))
    local.release(f"{NAME}@1.0.0", policy=POLICY, by=by())


def test_what_somebody_else_put_under_a_digest_is_not_used(local: Registry, tmp_path: Path) -> None:
    # An artifact that is signed and trusted, but is not the one that was asked for.
    mine, other = publish(local), publish(local, "2.0.0")
    root = tmp_path / "registry" / "blobs" / "sha256"
    for mine_, other_ in (
        (mine.digest, other.digest),
        (mine.manifest.tensors.sha256, Digest.of(b"")),
    ):
        path = root / mine_.hex[:2] / mine_.hex
        path.unlink()
        replacement = local.blobs.get(other_, 1 << 20) if other_ != Digest.of(b"") else b"x" * 904
        path.write_bytes(replacement)
        with pytest.raises(RegistryError) as caught:
            local.fetch(mine.digest, POLICY, NOW)
        assert caught.value.code == "registry.blob_damaged"


def test_ids_that_look_like_paths_open_nothing(local: Registry) -> None:
    publish(local)
    for text in ("../../etc/passwd", "sha256:../../../etc/passwd", f"{NAME}@../x", "/etc/passwd"):
        for use in (local.resolve, lambda t: local.retire(t, by=by())):
            with pytest.raises(UsageError) as caught:
                use(text)
            assert caught.value.code == "reference.malformed"
    for name in ("../etc", "acme/../x", "\x1b[2J", ""):
        with pytest.raises(NotFound) as missing:
            local.show(name)
        assert str(missing.value).isprintable()


def test_a_page_has_a_limit(local: Registry) -> None:
    artifacts: list[Artifact] = [publish(local, name=f"acme/n{i}") for i in range(5)]
    assert len(artifacts) == 5
    page = local.list("acme/", limit=2)
    assert [known.name for known in page.names] == ["acme/n0", "acme/n1"]
    assert page.after == "acme/n1"
    page = local.list("acme/", after="acme/n3", limit=2)
    assert [known.name for known in page.names] == ["acme/n4"]
    assert page.after is None
    for limit in (0, 1001):
        with pytest.raises(ForewordError) as caught:
            local.list(limit=limit)
        assert caught.value.code == "registry.limit"
