"""Verification: who is believed, when, and that nothing else gives a `VerifiedArtifact`."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta

import pytest

from foreword.artifact import Artifact
from foreword.errors import TrustError
from foreword.signing.policy import Purpose, TenantRule, TrustedKey, TrustPolicy
from foreword.signing.statement import Finding, Statement
from foreword.signing.verify import SKEW, Attestation, VerifiedArtifact, verify
from tests.artifact.samples import sample
from tests.signing.made import NOW, attested, envelope, key, policy, signed

SECOND = timedelta(seconds=1)
ME, YOU, CI = key("me"), key("you", "ecdsa-sha2-nistp256"), key("ci")
ARTIFACT = sample()


def judged(
    envelopes: Sequence[bytes], trusting: TrustPolicy, *, artifact: Artifact = ARTIFACT,
    purpose: Purpose = "use",
) -> VerifiedArtifact:  # fmt: skip
    return verify(
        artifact.manifest_bytes, artifact.tensor_bytes, envelopes, trusting, NOW, purpose=purpose
    )


def refusal(envelopes: Sequence[bytes], trusting: TrustPolicy, **given: Purpose) -> TrustError:
    with pytest.raises(TrustError) as caught:
        judged(envelopes, trusting, **given)  # type: ignore[arg-type]
    return caught.value


def test_what_is_verified_is_what_came_in() -> None:
    verified = judged([signed(ARTIFACT, ME)], policy(ME))
    assert verified.artifact == ARTIFACT
    assert verified.digest == ARTIFACT.digest
    assert verified.signers == (ME.id,)
    assert verified.attestations == ()
    assert verified.artifact.tensor_bytes is ARTIFACT.tensor_bytes, "no copy, no second reading"


def test_a_buffer_that_changes_later_changes_nothing() -> None:
    tensors = bytearray(ARTIFACT.tensor_bytes)
    verified = verify(
        bytearray(ARTIFACT.manifest_bytes), tensors, [signed(ARTIFACT, ME)], policy(ME), NOW
    )  # type: ignore[arg-type]
    tensors[-1] ^= 1
    assert verified.artifact.tensor_bytes == ARTIFACT.tensor_bytes
    assert verified.artifact.manifest_bytes == ARTIFACT.manifest_bytes


def test_different_keys_add_up_in_one_envelope_or_in_several() -> None:
    trusting = policy(ME, YOU, CI, threshold=2)
    for envelopes in (
        [signed(ARTIFACT, ME, YOU)],
        [signed(ARTIFACT, ME), signed(ARTIFACT, YOU)],
        [signed(ARTIFACT, ME, YOU), signed(ARTIFACT, ME, now=NOW - SECOND)],
        [signed(ARTIFACT, key("stranger")), signed(ARTIFACT, ME), signed(ARTIFACT, YOU)],
        [signed(ARTIFACT, key("stranger"), ME, YOU)],
    ):
        assert judged(envelopes, trusting).signers == (ME.id, YOU.id)


@pytest.mark.parametrize(
    "envelopes",
    [
        [signed(ARTIFACT, ME)] * 2,
        [signed(ARTIFACT, ME), signed(ARTIFACT, ME, now=NOW - SECOND)],
        [signed(ARTIFACT, ME), attested(ARTIFACT, YOU)],
        [signed(ARTIFACT, ME), signed(ARTIFACT, key("stranger"))],
    ],
    ids=["the same twice", "again later", "an attestation", "a stranger"],
)
def test_one_key_is_not_two(envelopes: list[bytes]) -> None:
    assert refusal(envelopes, policy(ME, YOU, threshold=2)).code == "trust.threshold"


def test_the_message_says_why_the_others_do_not_count() -> None:
    old = TrustedKey(YOU.public, "you", not_after=NOW - SECOND)
    error = refusal([signed(ARTIFACT, ME, YOU)], policy(ME, old, threshold=2))
    assert error.code == "trust.threshold"
    assert "2 different keys, 1 count" in str(error)
    assert "'you'" in str(error)
    assert "counted until" in str(error)


def test_of_several_bad_keys_the_nearest_to_counting_is_named() -> None:
    revoked = TrustedKey(ME.public, "me", status="revoked")
    expired = TrustedKey(YOU.public, "you", not_after=NOW - SECOND)
    envelopes = [signed(ARTIFACT, key("stranger")), signed(ARTIFACT, YOU), signed(ARTIFACT, ME)]
    assert refusal(envelopes, policy(revoked, expired)).code == "trust.key_expired"
    assert refusal(envelopes, policy(revoked)).code == "trust.key_revoked"


def test_a_retiring_key_is_good_for_use_and_not_for_publishing() -> None:
    retiring = policy(TrustedKey(ME.public, "me", status="retiring"))
    assert judged([signed(ARTIFACT, ME)], retiring).signers == (ME.id,)
    error = refusal([signed(ARTIFACT, ME)], retiring, purpose="publish")
    assert error.code == "trust.key_retiring"


def test_a_broken_signature_of_a_known_key_spoils_it_all() -> None:
    good = envelope(ARTIFACT, ME)
    other = envelope(ARTIFACT, CI, now=NOW - SECOND)
    mixed = dataclasses.replace(good, signatures=(*good.signatures, *other.signatures))
    assert refusal([mixed.to_bytes()], policy(ME, CI)).code == "trust.signature"
    assert judged([mixed.to_bytes()], policy(ME)).signers == (ME.id,), "a stranger's is ignored"


def test_a_name_without_a_tenant_belongs_to_nobody() -> None:
    artifact = sample(name="support")
    envelopes = [signed(artifact, ME)]
    assert judged(envelopes, policy(ME), artifact=artifact).signers
    acme = policy(TrustedKey(ME.public, "me", ("acme", "support")))
    with pytest.raises(TrustError) as caught:
        judged(envelopes, acme, artifact=artifact)
    assert caught.value.code == "trust.tenant"


def test_the_tenants_rule_decides() -> None:
    strict = TrustPolicy(policy(ME).keys, {"acme": TenantRule(2), "*": TenantRule(1)})
    assert refusal([signed(ARTIFACT, ME)], strict).code == "trust.threshold"
    other = sample(name="other/support")
    assert judged([signed(other, ME)], strict, artifact=other).signers


PASS, FAIL, UNSURE = "pass", "fail", "insufficient"
# Who said what, how many seconds after the first word; and how it ends.
VERDICTS: dict[str, tuple[list[tuple[str, str, int]], str | None]] = {
    "one pass": ([("ci", PASS, 0)], None),
    "one fail": ([("ci", FAIL, 0)], "trust.attestation_verdict"),
    "one that could not tell": ([("ci", UNSURE, 0)], "trust.attestation_verdict"),
    "first a fail, then a pass": ([("ci", FAIL, 0), ("ci", PASS, 1)], None),
    "the same in another order of lines": ([("ci", PASS, 1), ("ci", FAIL, 0)], None),
    "first a pass, then a fail": (
        [("ci", PASS, 0), ("ci", FAIL, 1)], "trust.attestation_verdict",
    ),
    "both in one second": ([("ci", PASS, 0), ("ci", FAIL, 0)], "trust.attestation_verdict"),
    "both in one second, the other line first": (
        [("ci", FAIL, 0), ("ci", PASS, 0)], "trust.attestation_verdict",
    ),
    "another key's fail stands": (
        [("ci", FAIL, 0), ("me", PASS, 1)], "trust.attestation_verdict",
    ),
    "another key that could not tell does not": ([("ci", UNSURE, 0), ("me", PASS, 1)], None),
    "a stranger's fail does not": ([("ci", PASS, 0), ("stranger", FAIL, 1)], None),
    "a stranger's pass does not": ([("stranger", PASS, 0)], "trust.attestation_missing"),
    "nobody said anything": ([], "trust.attestation_missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", VERDICTS)
def test_the_newest_word_of_each_key_counts(case: str) -> None:
    said, code = VERDICTS[case]
    start = NOW - timedelta(minutes=1)
    envelopes = [signed(ARTIFACT, ME)] + [
        attested(ARTIFACT, key(name), "evaluation", verdict, start + seconds * SECOND)  # type: ignore[arg-type]
        for name, verdict, seconds in said
    ]
    trusting = policy(ME, CI, require=("evaluation",))
    if code is None:
        assert judged(envelopes, trusting).attestations
    else:
        assert refusal(envelopes, trusting).code == code


def test_attestations_come_with_their_evidence_and_their_key() -> None:
    finding = Finding("training", "insufficient", {"rows": 12})
    envelopes = [
        signed(ARTIFACT, ME),
        envelope(ARTIFACT, ME, CI, finding=finding).to_bytes(),
        attested(ARTIFACT, key("stranger"), "training"),
    ]
    sign_only = TrustedKey(ME.public, "me", may=("sign",))
    assert judged(envelopes, policy(ME, CI)).attestations == (
        Attestation(ME.id, NOW, finding), Attestation(CI.id, NOW, finding),
    )  # fmt: skip
    assert judged(envelopes, policy(sign_only, CI)).attestations == (
        Attestation(CI.id, NOW, finding),
    )


def test_an_attestation_is_no_signature() -> None:
    assert refusal([attested(ARTIFACT, ME)], policy(ME)).code == "trust.unsigned"
    reviewer = TrustedKey(CI.public, "ci", may=("review",))
    error = refusal([signed(ARTIFACT, ME), attested(ARTIFACT, CI)],
                    policy(ME, reviewer, require=("evaluation",)))  # fmt: skip
    assert error.code == "trust.role"


def test_clocks_may_differ_a_little() -> None:
    assert judged([signed(ARTIFACT, ME, now=NOW + SKEW)], policy(ME)).signers
    error = refusal([signed(ARTIFACT, ME, now=NOW + SKEW + SECOND)], policy(ME))
    assert error.code == "trust.signed_ahead"


def test_a_verified_artifact_is_made_nowhere_else() -> None:
    verified = judged([signed(ARTIFACT, ME)], policy(ME))
    other = sample(version="6.6.6")
    for make in (
        lambda: VerifiedArtifact(other, (ME.id,), ()),  # type: ignore[call-arg]
        lambda: VerifiedArtifact(other, (ME.id,), (), (), object()),
        lambda: dataclasses.replace(verified, artifact=other),
        lambda: dataclasses.replace(verified, artifact=other, seal=object()),
        lambda: dataclasses.replace(verified, artifact=other, seal=None),
        lambda: pickle.dumps(verified),
        lambda: copy.copy(verified),
        lambda: type("Sub", (VerifiedArtifact,), {"__post_init__": lambda self, seal: None}),
    ):
        with pytest.raises((TypeError, ValueError)):
            make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        verified.artifact = other  # type: ignore[misc]
    assert "seal" not in repr(verified)


def test_an_empty_finding_is_still_an_attestation() -> None:
    statement = Statement.about(ARTIFACT, NOW, Finding("review", "pass", {}))
    assert statement.says == "review"


@pytest.mark.parametrize("module", ["verify", "store", "oms"])
def test_importing_it_brings_neither_torch_nor_numpy(module: str) -> None:
    code = (
        f"import sys, foreword.signing.{module}\n"
        "heavy = {'torch', 'numpy', 'transformers', 'sqlalchemy', 'model_signing'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
