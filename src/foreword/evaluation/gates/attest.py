"""A verdict becomes a signed attestation about an artifact: what `release` asks the registry for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from foreword.artifact import Artifact, Digest, canonical
from foreword.errors import TrustError, UsageError
from foreword.evaluation.gates.chains import Chain
from foreword.evaluation.gates.verdict import Verdict
from foreword.signing.envelope import Envelope, sign
from foreword.signing.keys import SigningKey
from foreword.signing.statement import Finding, Statement
from foreword.signing.verify import VerifiedArtifact

KIND = "evaluation"
CHAIN_KIND = "chain"
"""Of its own: a chain that fails says nothing about a prefix by itself."""

_ROOM = 36_000
"""Bytes of a body; an envelope has 64 KB, and base64 takes a third."""
_ORDER = ("fail", "insufficient", "pass")


def attest(verdict: Verdict, artifact: Artifact, key: SigningKey, now: datetime) -> Envelope:
    """The verdict on an artifact, whatever it is, signed.

    Raises:
        UsageError: the verdict is about another artifact (`gate.subject`).
    """
    if verdict.subject.digest != artifact.digest:
        raise UsageError(
            f"the verdict is about {verdict.subject.digest}, this artifact is {artifact.digest}; judge "
            "it again",
            code="gate.subject",
        )
    finding = Finding(KIND, verdict.outcome, body_of(verdict))
    return sign(Statement.about(artifact, now, finding).to_bytes(), key)


def attest_chain(
    verdict: Verdict, chain: Chain, artifacts: Iterable[Artifact], key: SigningKey, now: datetime
) -> dict[Digest, Envelope]:
    """The verdict on a chain, once for each of its prefixes.

    Raises:
        UsageError: the verdict is about another chain, or an artifact is missing (`gate.subject`).
    """
    if verdict.subject.digest != chain.key:
        raise UsageError(
            f"the verdict is about the chain {verdict.subject.digest}, this one is {chain.key}; judge it "
            "again",
            code="gate.subject",
        )
    body = {**body_of(verdict, _ROOM - 4_000), "chain": str(chain.key), "steps": steps_of(chain)}
    finding = Finding(CHAIN_KIND, verdict.outcome, body)
    known = {artifact.digest: artifact for artifact in artifacts}
    missing = [step.name for step in chain.steps if step.digest and step.digest not in known]
    if missing:
        raise UsageError(
            f"the artifact of the step {missing[0]!r} was not given", code="gate.subject"
        )
    return {
        step.digest: sign(Statement.about(known[step.digest], now, finding).to_bytes(), key)
        for step in chain.steps
        if step.digest is not None
    }


def require_chain(chain: Chain, verified: Mapping[Digest, VerifiedArtifact]) -> None:
    """Every prefix of a chain has the newest word of somebody trusted that this very chain passes.

    Raises:
        TrustError: one has none (`trust.chain_missing`), or its newest word is another
            (`trust.chain_verdict`).
    """
    for step in chain.steps:
        if step.digest is None:
            continue
        said = [
            each
            for each in (verified[step.digest].attestations if step.digest in verified else ())
            if each.finding.kind == CHAIN_KIND and each.finding.body.get("chain") == str(chain.key)
        ]
        if not said:
            raise TrustError(
                f"nobody trusted has judged the chain {chain.key.short} with {step.name!r} in it; judge "
                "it with `foreword gate --chain`",
                code="trust.chain_missing",
            )
        # Within one second the worse verdict is taken for the later one.
        newest = max(said, key=lambda each: (each.signed, -_ORDER.index(each.finding.verdict)))
        if newest.finding.verdict != "pass":
            raise TrustError(
                f"the chain {chain.key.short} was judged {newest.finding.verdict!r}; judge it again, or "
                "take other versions",
                code="trust.chain_verdict",
            )


def steps_of(chain: Chain) -> list[dict[str, Any]]:
    """Names and digests in order; inputs are under the key."""
    return [{"name": s.name, "digest": str(s.digest) if s.digest else None} for s in chain.steps]


def body_of(verdict: Verdict, room: int = _ROOM) -> dict[str, Any]:
    """The evidence: all of the verdict, its digest, and as many rules as there is room for.

    What failed comes first; `rules_left_out` counts the others, which `verdict` still covers.
    """
    value = verdict.to_value()
    results: Sequence[dict[str, Any]] = sorted(
        value.pop("results"), key=lambda each: _ORDER.index(each["outcome"])
    )
    body = {**value, "verdict": str(verdict.digest), "rules": len(results), "results": []}
    left = room - len(canonical.encode(body))
    kept = []
    for each in results:
        left -= len(canonical.encode(each)) + 1
        if left < 0:
            break
        kept.append(each)
    return {**body, "results": kept, "rules_left_out": len(results) - len(kept)}
