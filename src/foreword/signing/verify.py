"""`verify`: the one way from bytes to a `VerifiedArtifact`, and so to anything that is used.

The rules, in the order in which they are applied. Nothing is built from a tensor before all of them hold,
and the bytes that were judged are the bytes of the result.

    1. the inputs are within their limits
    2. the policy has not expired
    3. each envelope is canonical and holds an in-toto payload
    4. each signature of a known key is good, over the raw payload; an envelope that only unknown keys
       signed is not read further
    5. its statement is about these very bytes: both digests
    6. the manifest says the same name and version
    7. enough different keys signed that may speak for this tenant now
    8. the version is not below the floor and the digest is not revoked
    9. each required kind of attestation is there, by a key that may give it, with the verdict `pass`
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import datetime, timedelta
from typing import Any, NoReturn, SupportsIndex, final

from foreword.artifact.canonical import MAX_BYTES as MAX_MANIFEST
from foreword.artifact.digest import Digest
from foreword.artifact.manifest import MAX_TENSOR_BYTES, MAX_TENSOR_HEADER, Manifest
from foreword.artifact.package import Artifact, from_hashed
from foreword.errors import TrustError
from foreword.signing.envelope import IN_TOTO, Envelope
from foreword.signing.policy import Purpose, TrustPolicy, tenant_of
from foreword.signing.statement import SIGN, Finding, Statement, Verdict
from foreword.signing.tables import moment_text
from foreword.signing.trusted import Objection, nearest

MAX_ENVELOPES = 64
SKEW = timedelta(minutes=5)
"""How far a signer's clock may be ahead of ours."""

_SEAL = object()
_SEVERITY: tuple[Verdict, ...] = ("pass", "insufficient", "fail")


@dataclass(frozen=True)
class Attestation:
    """A finding, and the key whose word it is."""

    key_id: str
    signed: datetime
    finding: Finding


@final
@dataclass(frozen=True)
class VerifiedArtifact:
    """An artifact somebody we trust vouches for. Only `verify` makes one."""

    artifact: Artifact
    signers: tuple[str, ...]
    """Ids of the different keys whose signatures counted."""
    attestations: tuple[Attestation, ...]
    """Those whose word counted, whatever their verdict."""
    envelopes: tuple[bytes, ...]
    """What it was judged by: with the bytes of the artifact, all it takes to judge a copy again."""
    seal: InitVar[object]
    seconds: float = field(default=0.0, compare=False)
    """How long it took to judge it."""

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("only foreword.signing.verify makes a VerifiedArtifact")

    def __init_subclass__(cls, **_: Any) -> NoReturn:
        raise TypeError("a VerifiedArtifact has no subclasses")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "a VerifiedArtifact is not pickled or copied; keep the bytes and verify again"
        )

    @property
    def digest(self) -> Digest:
        return self.artifact.digest


@dataclass(frozen=True)
class _Opened:
    """An envelope whose signatures were checked."""

    statement: Statement | None
    """None if no key we know signed it: such a payload is not read."""
    known: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def says(self) -> str:
        return self.statement.says if self.statement else SIGN


@dataclass(frozen=True)
class _Word:
    """One key's signature, and why it does not count, if it does not."""

    key_id: str
    envelope: _Opened
    objection: Objection | None


def verify(
    manifest_bytes: bytes,
    tensor_bytes: bytes,
    envelopes: Sequence[bytes],
    policy: TrustPolicy,
    now: datetime,
    *,
    purpose: Purpose = "use",
) -> VerifiedArtifact:
    """Judge the bytes in hand by the envelopes that came with them.

    Raises:
        TrustError: with one code for each cause (docs/signing.md lists them all).
        ArtifactError: somebody trusted signed what is no artifact.
    """
    began = time.perf_counter()
    # The same object if it is `bytes`; a buffer that its owner can still change is copied.
    manifest_bytes, tensor_bytes = bytes(manifest_bytes), bytes(tensor_bytes)
    _check_sizes(manifest_bytes, tensor_bytes, envelopes)
    policy.check_current(now)
    opened = [_open(data, policy) for data in envelopes]
    statements = [envelope.statement for envelope in opened if envelope.statement]
    if not statements:
        _refuse_unsigned(opened)
    digest, tensors = Digest.of(manifest_bytes), Digest.of(tensor_bytes)
    _check_subjects(statements, digest, tensors)
    manifest = Manifest.from_bytes(manifest_bytes)
    _check_facts(statements, manifest, now)
    tenant = tenant_of(manifest.name)
    words = list(_words(opened, policy, tenant, now, purpose))
    rule = policy.rule_for(tenant)
    signers = _check_threshold(words, rule.threshold)
    policy.check_not_taken_back(manifest.name, manifest.version, digest)
    attestations = tuple(_attestations(words))
    for kind in rule.require:
        _check_required(kind, attestations, words)
    artifact = from_hashed(manifest_bytes, tensor_bytes, tensors)
    kept, took = tuple(map(bytes, envelopes)), time.perf_counter() - began
    return VerifiedArtifact(artifact, signers, attestations, kept, _SEAL, took)


def _check_sizes(manifest: bytes, tensors: bytes, envelopes: Sequence[bytes]) -> None:
    for what, size, most in (
        ("a manifest", len(manifest), MAX_MANIFEST),
        ("a tensor file", len(tensors), MAX_TENSOR_BYTES + 8 + MAX_TENSOR_HEADER),
    ):
        if size > most:
            raise TrustError(f"{what} has at most {most} bytes, got {size}", code="trust.too_large")
    if len(envelopes) > MAX_ENVELOPES:
        raise TrustError(
            f"an artifact has at most {MAX_ENVELOPES} envelopes, got {len(envelopes)}",
            code="trust.too_large",
        )


def _open(data: bytes, policy: TrustPolicy) -> _Opened:
    envelope = Envelope.from_bytes(data)
    if envelope.payload_type != IN_TOTO:
        raise TrustError(
            f"expected an envelope around {IN_TOTO}, got {envelope.payload_type[:80]!r}",
            code="trust.payload_type",
        )
    ids = [signature.key_id for signature in envelope.signatures]
    known = tuple(key_id for key_id in ids if key_id in policy.keys)
    for key_id in known:
        key = policy.keys[key_id]
        if not envelope.verified_by(key.public):
            raise TrustError(
                f"the signature of key {key.name!r} ({key_id}) does not fit the envelope; it was "
                "changed after it was signed, get another copy",
                code="trust.signature",
            )
    statement = Statement.from_bytes(envelope.payload) if known else None
    return _Opened(statement, known, tuple(key_id for key_id in ids if key_id not in known))


def _check_subjects(statements: Sequence[Statement], manifest: Digest, tensors: Digest) -> None:
    for statement in statements:
        if statement.artifact != manifest:
            raise TrustError(
                f"the envelope vouches for {statement.artifact}, this manifest is {manifest}; one "
                "of the two was changed or belongs to another artifact",
                code="trust.subject",
            )
        if statement.tensors != tensors:
            raise TrustError(
                f"the envelope vouches for tensors with {statement.tensors}, these have {tensors}; "
                "the file was changed, get another copy",
                code="trust.tensors",
            )


def _refuse_unsigned(opened: Sequence[_Opened]) -> NoReturn:
    unknown = [key_id for envelope in opened for key_id in envelope.unknown]
    if unknown:
        raise TrustError(
            f"the policy knows none of the keys that signed this, such as {unknown[0]}; sign with a "
            "key it trusts, or have this one added (`foreword keys trust`)",
            code="trust.unknown_key",
        )
    raise TrustError(
        "the artifact is not signed; sign it with `foreword sign ARTIFACT --key NAME`",
        code="trust.unsigned",
    )


def _check_facts(statements: Sequence[Statement], manifest: Manifest, now: datetime) -> None:
    for statement in statements:
        if statement.name != manifest.name:
            raise TrustError(
                f"{statement.name!r} was signed, the manifest says {manifest.name!r}",
                code="trust.name",
            )
        if statement.version != manifest.version:
            raise TrustError(
                f"version {statement.version} was signed, the manifest says {manifest.version}",
                code="trust.version",
            )
        if statement.signed > now + SKEW:
            raise TrustError(
                f"it says it was signed at {moment_text(statement.signed)}, now is "
                f"{moment_text(now)}; set both clocks right and sign again",
                code="trust.signed_ahead",
            )


def _words(
    opened: Iterable[_Opened], policy: TrustPolicy, tenant: str, now: datetime, purpose: Purpose
) -> Iterable[_Word]:
    for envelope in opened:
        for key_id in (*envelope.known, *envelope.unknown):
            objection = policy.objection(key_id, envelope.says, tenant, now, purpose)
            yield _Word(key_id, envelope, objection)


def _check_threshold(words: Sequence[_Word], threshold: int) -> tuple[str, ...]:
    """The different keys whose signatures count, if they are enough."""
    signatures = [word for word in words if word.envelope.says == SIGN]
    signers = tuple(dict.fromkeys(word.key_id for word in signatures if not word.objection))
    if len(signers) >= threshold:
        return signers
    objections = [word.objection for word in signatures if word.objection]
    if signers:
        others = "".join(f"; {objection.reason}" for objection in objections[:4])
        raise TrustError(
            f"expected signatures by {threshold} different keys, {len(signers)} count{others}",
            code="trust.threshold",
        )
    raise _refusal(objections, "trust.unsigned",
                   "there are attestations, but nobody signed the artifact; sign it with "
                   "`foreword sign ARTIFACT --key NAME`")  # fmt: skip


def _attestations(words: Iterable[_Word]) -> Iterable[Attestation]:
    for word in words:
        statement = word.envelope.statement
        if statement and statement.finding and not word.objection:
            yield Attestation(word.key_id, statement.signed, statement.finding)


def _check_required(kind: str, attestations: Iterable[Attestation], words: Iterable[_Word]) -> None:
    """The newest word of each key counts; one has to be `pass`, none may be `fail`."""
    said = [each for each in attestations if each.finding.kind == kind]
    if not said:
        about = [word for word in words if word.envelope.says == kind]
        objections = [word.objection for word in about if word.objection]
        raise _refusal(objections, "trust.attestation_missing",
                       f"the policy asks for an attestation {kind!r}; add it with `foreword sign "
                       f"ARTIFACT --key NAME --attest {kind} ...`")  # fmt: skip
    # Within one second the worse verdict is taken for the later one.
    said.sort(key=lambda each: (each.signed, _SEVERITY.index(each.finding.verdict)))
    verdicts = set({each.key_id: each.finding.verdict for each in said}.values())
    if "pass" not in verdicts or "fail" in verdicts:
        raise TrustError(
            f"the attestation {kind!r} has to be 'pass', it is {', '.join(sorted(verdicts))}",
            code="trust.attestation_verdict",
        )


def _refusal(objections: Sequence[Objection], code: str, otherwise: str) -> TrustError:
    """What was wrong with the key that was nearest to counting, or that there was none."""
    if not objections:
        return TrustError(otherwise, code=code)
    objection = nearest(objections)
    return TrustError(objection.reason, code=objection.code)
