"""What a signature says: an in-toto Statement v1 about the two files of an artifact.

https://github.com/in-toto/attestation gives the frame; the two predicates are ours:

    urn:foreword:signature:v1     this is NAME at VERSION
    urn:foreword:attestation:v1   this was looked at (kind), with this result (verdict, body)

A payload is canonical JSON with exactly these fields, so one statement has one encoding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NoReturn, cast, get_args

from foreword.artifact import canonical
from foreword.artifact.digest import Digest
from foreword.artifact.fields import Fields
from foreword.artifact.manifest import check_name, check_version
from foreword.artifact.package import MANIFEST, TENSORS, Artifact
from foreword.errors import ArtifactError, TrustError, UsageError
from foreword.signing.times import moment, stamp

STATEMENT = "https://in-toto.io/Statement/v1"
SIGNATURE = "urn:foreword:signature:v1"
ATTESTATION = "urn:foreword:attestation:v1"

SIGN = "sign"
"""What a signature does; beside it stand the kinds of attestations."""
Verdict = Literal["pass", "fail", "insufficient"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

_KIND = re.compile(r"[a-z][a-z-]{0,62}")


@dataclass(frozen=True)
class Finding:
    """The result of looking at an artifact."""

    kind: str
    """`review`, `evaluation`, `training`, or an own word of lower-case letters and '-'."""
    verdict: Verdict
    body: Mapping[str, Any]
    """The evidence, any JSON object; an envelope has room for about 40 KB of it."""

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if self.verdict not in VERDICTS:
            raise UsageError(
                f"expected a verdict of {', '.join(VERDICTS)}, got {str(self.verdict)[:40]!r}",
                code="attestation.verdict",
            )


@dataclass(frozen=True)
class Statement:
    """Two digests, a name, a version, a time; with a finding it is an attestation."""

    artifact: Digest
    """Of `manifest.json`."""
    tensors: Digest
    """Of `prefix.safetensors`."""
    name: str
    version: str
    signed: datetime
    """UTC, to the second; the signer's word, no more."""
    finding: Finding | None = None

    @classmethod
    def about(cls, artifact: Artifact, now: datetime, finding: Finding | None = None) -> Statement:
        """The statement to sign about an artifact in hand."""
        manifest = artifact.manifest
        return cls(
            artifact.digest,
            manifest.tensors.sha256,
            manifest.name,
            manifest.version,
            moment(stamp(now)),
            finding,
        )

    @property
    def says(self) -> str:
        """`sign`, or the kind of the attestation: what a key must be allowed to say."""
        return self.finding.kind if self.finding else SIGN

    def to_bytes(self) -> bytes:
        """Canonical JSON, the payload of an envelope.

        Raises:
            ArtifactError: the finding's body has something JSON cannot hold exactly (`json.value`).
        """
        predicate: dict[str, Any] = {
            "name": self.name, "version": self.version, "signed": stamp(self.signed),
        }  # fmt: skip
        if self.finding:
            predicate |= {"kind": self.finding.kind, "verdict": self.finding.verdict,
                          "body": self.finding.body}  # fmt: skip
        return canonical.encode(
            {
                "_type": STATEMENT,
                "subject": [
                    {"name": MANIFEST, "digest": {"sha256": self.artifact.hex}},
                    {"name": TENSORS, "digest": {"sha256": self.tensors.hex}},
                ],
                "predicateType": ATTESTATION if self.finding else SIGNATURE,
                "predicate": predicate,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Statement:
        """Read exactly what `to_bytes` writes; anything else is refused.

        Raises:
            TrustError: `trust.statement`, or `trust.predicate` for a statement of another kind.
        """
        try:
            return _from_json(canonical.decode(data))
        except (ArtifactError, UsageError) as e:
            _refuse(str(e), e)


def check_kind(kind: str) -> None:
    """An own word for a kind of attestation; `sign` is taken.

    Raises:
        UsageError: with code `attestation.kind`.
    """
    if kind == SIGN or not _KIND.fullmatch(kind):
        raise UsageError(
            f"a kind of attestation is one word of lower-case letters and '-' other than {SIGN!r}, "
            f"such as review or evaluation, got {kind[:80]!r}",
            code="attestation.kind",
        )


def _from_json(value: Any) -> Statement:
    fields = Fields(value, "statement")
    fields.choice("_type", (STATEMENT,))
    kind = fields.text("predicateType")
    if kind not in (SIGNATURE, ATTESTATION):
        raise TrustError(
            f"expected a statement of type {SIGNATURE} or {ATTESTATION}, got {kind[:80]!r}",
            code="trust.predicate",
        )
    subjects = fields.objects("subject", 2)
    if len(subjects) != 2:
        _refuse(f"expected two subjects, {MANIFEST} and {TENSORS}, got {len(subjects)}")
    predicate = fields.object("predicate")
    statement = Statement(
        artifact=_subject(subjects[0], MANIFEST),
        tensors=_subject(subjects[1], TENSORS),
        name=predicate.text("name"),
        version=predicate.text("version"),
        signed=_moment(predicate.text("signed")),
        finding=_finding(predicate) if kind == ATTESTATION else None,
    )
    check_name(statement.name)
    check_version(statement.version)
    predicate.done()
    fields.done()
    return statement


def _subject(fields: Fields, name: str) -> Digest:
    fields.choice("name", (name,))
    digests = fields.object("digest")
    digest = Digest(digests.text("sha256"))
    digests.done()
    fields.done()
    return digest


def _moment(text: str) -> datetime:
    try:
        return moment(text)
    except ValueError as e:
        _refuse(f"statement.predicate.signed: {e}", e)


def _finding(fields: Fields) -> Finding:
    verdict = cast(Verdict, fields.choice("verdict", VERDICTS))
    return Finding(fields.text("kind"), verdict, fields.object("body").rest())


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    raise TrustError(
        f"{reason}; the statement was made by another tool or version, sign the artifact again",
        code="trust.statement",
    ) from cause
