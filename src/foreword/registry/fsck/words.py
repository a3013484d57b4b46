"""What blobs say: the same as the journal says of them, and somebody who is trusted says it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from foreword.artifact import Digest, Manifest
from foreword.errors import ArtifactError, ForewordError, TrustError
from foreword.registry.compatibility import is_serving
from foreword.registry.facts import Claim, facts_of
from foreword.registry.fsck.finding import Finding, broken, doubtful
from foreword.registry.state import State, Version
from foreword.signing.envelope import Envelope
from foreword.signing.policy import TrustPolicy
from foreword.signing.statement import Statement
from foreword.signing.verify import verify

_FORGED = "its entry was not written by a publish: find out who wrote it, and revoke the version"


def agreement(version: Version, blobs: Mapping[Digest, bytes]) -> Iterator[Finding]:
    """The facts and claims in the journal are those in manifest and envelopes."""
    where = f"{version.name}@{version.version}"
    try:
        found = facts_of(Manifest.from_bytes(blobs[version.digest]), version.digest)
    except ArtifactError as e:
        yield broken("facts", where, f"its manifest cannot be read: {e}", _FORGED)
        return
    if found != version.facts:
        yield broken(
            "facts", where, "the journal says something else of it than its manifest", _FORGED
        )
    for known in version.claims:
        wrong = _disagreement(version, known.claim, blobs[known.claim.envelope])
        if wrong:
            yield broken("claim", f"{where} (envelope {known.claim.envelope})", wrong, _FORGED)


def trust(
    state: State,
    version: Version,
    blobs: Mapping[Digest, bytes],
    policy: TrustPolicy,
    now: datetime,
) -> Iterator[Finding]:
    """The policy trusts it today, as `fetch` will ask."""
    try:
        verify(
            blobs[version.digest],
            blobs[version.facts.tensors.sha256],
            [blobs[known.claim.envelope] for known in version.claims],
            policy,
            now,
        )
    except (TrustError, ArtifactError) as e:
        severity = broken if is_serving(state, version) else doubtful
        yield severity(
            "trust",
            f"{version.name}@{version.version}",
            f"it cannot be used now ({e.code}): {e}",
            "sign it again with a key that counts, change the policy, or revoke it",
        )


def _disagreement(version: Version, claim: Claim, data: bytes) -> str | None:
    try:
        envelope = Envelope.from_bytes(data)
        statement = Statement.from_bytes(envelope.payload)
    except ForewordError as e:
        return f"it cannot be read: {e}"
    if (statement.artifact, statement.tensors) != (version.digest, version.facts.tensors.sha256):
        return f"it is about {statement.artifact}"
    verdict = statement.finding.verdict if statement.finding else None
    if (statement.says, verdict) != (claim.kind, claim.verdict):
        return f"it says {statement.says} {verdict or ''}, the journal {claim.kind} {claim.verdict or ''}"
    strangers = set(claim.signers) - {signature.key_id for signature in envelope.signatures}
    return f"{min(strangers)} did not sign it" if strangers else None
