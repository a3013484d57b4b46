"""What envelopes say about a version, as far as somebody trusted says it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from foreword.artifact import Digest
from foreword.errors import TrustError
from foreword.registry.facts import Claim
from foreword.signing.envelope import Envelope
from foreword.signing.policy import TrustPolicy, tenant_of
from foreword.signing.statement import Statement
from foreword.signing.trusted import nearest
from foreword.signing.verify import VerifiedArtifact


def claims_of(envelopes: Iterable[bytes], verified: VerifiedArtifact) -> tuple[Claim, ...]:
    """One claim for each envelope whose word counted when `verified` was made from them.

    An envelope that only strangers signed says nothing and is left out.
    """
    return tuple(claim for data in dict.fromkeys(envelopes) for claim in _claim(data, verified))


def require_claim(
    data: bytes, verified: VerifiedArtifact, policy: TrustPolicy, now: datetime
) -> Claim:
    """The claim of an envelope that is new; a retiring key vouches for nothing new.

    Raises:
        TrustError: its word does not count, and why.
    """
    envelope = Envelope.from_bytes(data)
    says = Statement.from_bytes(envelope.payload).says
    tenant = tenant_of(verified.artifact.manifest.name)
    objections = {
        signature.key_id: policy.objection(signature.key_id, says, tenant, now, "publish")
        for signature in envelope.signatures
    }
    for claim in _claim(data, verified):
        signers = tuple(key for key in claim.signers if objections[key] is None)
        if signers:
            return replace(claim, signers=signers)
    objection = nearest(filter(None, objections.values()))
    raise TrustError(objection.reason, code=objection.code)


def without_requirements(policy: TrustPolicy) -> TrustPolicy:
    """The policy, asking for no attestation: a new finding is worth keeping also if it is bad news."""
    rules = {tenant: replace(rule, require=()) for tenant, rule in policy.tenants.items()}
    return replace(policy, tenants=rules)


def _claim(data: bytes, verified: VerifiedArtifact) -> Iterator[Claim]:
    envelope = Envelope.from_bytes(data)
    ids = [signature.key_id for signature in envelope.signatures]
    heard = set(verified.signers) | {each.key_id for each in verified.attestations}
    if not heard.intersection(ids):
        return  # nobody we know signed it, so what is in it is not read
    statement = Statement.from_bytes(envelope.payload)
    finding = statement.finding
    if finding is None:
        signers = [key for key in ids if key in verified.signers]
    else:
        said = {
            each.key_id
            for each in verified.attestations
            if each.finding == finding and each.signed == statement.signed
        }
        signers = [key for key in ids if key in said]
    if signers:
        verdict = finding.verdict if finding else None
        yield Claim(Digest.of(data), statement.says, verdict, tuple(signers))
