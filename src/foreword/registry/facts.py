"""What the registry knows of a version and of a base: the facts of a manifest that rules need.

They are written into the journal, so that state, lists, compatibility and lineage need no blob.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from foreword.artifact import BaseRef, Digest, Dtype, Geometry, Manifest, TensorFile
from foreword.artifact.fields import Fields, refuse
from foreword.artifact.manifest import (
    ITEM_SIZE,
    MAX_LENGTH,
    MAX_TENSOR_BYTES,
    MAX_TENSOR_HEADER,
    check_name,
    check_version,
)
from foreword.errors import ArtifactError
from foreword.registry.spans import geometry_of, spans_of
from foreword.signing.envelope import MAX_SIGNATURES
from foreword.signing.statement import SIGN, VERDICTS, Verdict

_MAX_CONTEXT = 1 << 40
_MAX_ID = 200


@dataclass(frozen=True)
class Base:
    """A base model that is run here; `ref.id` is the name it is known by."""

    ref: BaseRef
    geometry: Geometry

    def __post_init__(self) -> None:
        check_id(self.ref.id)

    @property
    def id(self) -> str:
        return self.ref.id


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a version was made from, as its training record says; None where it does not say."""

    data: Digest | None
    """Of the training data: `training.data.digest`."""
    code: str | None
    """Version of Foreword that trained it: `training.software.foreword`."""
    parent: Digest | None
    """The version it was started from: `training.parent`."""


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """One prefix version without its numbers, probes and prompt."""

    name: str
    version: str
    digest: Digest
    created: str
    base: BaseRef
    geometry: Geometry
    length: int
    dtype: Dtype
    tensors: TensorFile
    lineage: Lineage


@dataclass(frozen=True, slots=True)
class Claim:
    """What one envelope says about a version, and whose word it was when it was accepted."""

    envelope: Digest
    """Of the envelope's bytes, which are kept as a blob."""
    kind: str
    """`sign`, or the kind of an attestation."""
    verdict: Verdict | None
    """None for `sign`."""
    signers: tuple[str, ...]
    """Ids of the keys whose word counted."""


def facts_of(manifest: Manifest, digest: Digest) -> VersionFacts:
    """The facts of a manifest whose bytes have this digest."""
    return VersionFacts(
        name=manifest.name,
        version=manifest.version,
        digest=digest,
        created=manifest.created,
        base=manifest.base,
        geometry=manifest.geometry,
        length=manifest.length,
        dtype=manifest.dtype,
        tensors=manifest.tensors,
        lineage=_lineage_of(manifest.training),
    )


def check_id(text: str) -> None:
    """The name of a base: a hub id, a path, a short name; printable and without spaces around it.

    Raises:
        ArtifactError: with code `base.id`.
    """
    if not 1 <= len(text) <= _MAX_ID or not text.isprintable() or text != text.strip():
        refuse("base.id", "base.id",
               f"expected 1 to {_MAX_ID} printable characters, got {text[:80]!r}")  # fmt: skip


def base_to_json(base: Base) -> dict[str, Any]:
    return {"ref": _ref_to_json(base.ref), "geometry": spans_of(base.geometry)}


def base_from_json(fields: Fields) -> Base:
    base = Base(_ref_from_json(fields.object("ref")), geometry_of(fields.object("geometry")))
    fields.done()
    return base


def facts_to_json(facts: VersionFacts) -> dict[str, Any]:
    lineage = facts.lineage
    return {
        "name": facts.name,
        "version": facts.version,
        "digest": str(facts.digest),
        "created": facts.created,
        "base": _ref_to_json(facts.base),
        "geometry": spans_of(facts.geometry),
        "length": facts.length,
        "dtype": facts.dtype,
        "tensors": {"sha256": str(facts.tensors.sha256), "size": facts.tensors.size},
        "lineage": {
            "data": text_or_null(lineage.data),
            "code": lineage.code,
            "parent": text_or_null(lineage.parent),
        },
    }


def facts_from_json(fields: Fields) -> VersionFacts:
    facts = VersionFacts(
        name=fields.text("name"),
        version=fields.text("version"),
        digest=Digest.parse(fields.text("digest")),
        created=fields.text("created"),
        base=_ref_from_json(fields.object("base")),
        geometry=geometry_of(fields.object("geometry")),
        length=fields.integer("length", 1, MAX_LENGTH),
        dtype=cast(Dtype, fields.choice("dtype", tuple(ITEM_SIZE))),
        tensors=_tensors_from_json(fields.object("tensors")),
        lineage=_lineage_from_json(fields.object("lineage")),
    )
    fields.done()
    check_name(facts.name)
    check_version(facts.version)
    return facts


def claim_to_json(claim: Claim) -> dict[str, Any]:
    return {
        "envelope": str(claim.envelope),
        "kind": claim.kind,
        "verdict": claim.verdict,
        "signers": list(claim.signers),
    }


def claim_from_json(fields: Fields) -> Claim:
    kind = fields.text("kind")
    verdict = None if fields.is_null("verdict") else fields.choice("verdict", VERDICTS)
    if (verdict is None) != (kind == SIGN):
        refuse("claim", "manifest.value", "a signature has no verdict, an attestation has one")
    claim = Claim(
        envelope=Digest.parse(fields.text("envelope")),
        kind=kind,
        verdict=cast(Verdict | None, verdict),
        signers=fields.texts("signers", MAX_SIGNATURES),
    )
    fields.done()
    return claim


def text_or_null(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)


def digest_or_none(fields: Fields, name: str) -> Digest | None:
    return None if fields.is_null(name) else Digest.parse(fields.text(name))


def _lineage_of(training: Mapping[str, Any]) -> Lineage:
    """The training record is free form: what is not there or has another form is not said."""
    data, software = training.get("data"), training.get("software")
    code = software.get("foreword") if isinstance(software, Mapping) else None
    return Lineage(
        data=_digest(data.get("digest") if isinstance(data, Mapping) else None),
        code=code if isinstance(code, str) and code.isprintable() else None,
        parent=_digest(training.get("parent")),
    )


def _digest(value: Any) -> Digest | None:
    try:
        return Digest.parse(value)
    except ArtifactError:
        return None


def _ref_to_json(ref: BaseRef) -> dict[str, Any]:
    return {
        "id": ref.id,
        "fingerprint": str(ref.fingerprint),
        "tokenizer": text_or_null(ref.tokenizer),
        "architecture": ref.architecture,
        "context": ref.context,
    }


def _ref_from_json(fields: Fields) -> BaseRef:
    ref = _ref(
        fields.text("id"),
        fields.text("fingerprint"),
        None if fields.is_null("tokenizer") else fields.text("tokenizer"),
        fields.text("architecture"),
        None if fields.is_null("context") else fields.integer("context", 1, _MAX_CONTEXT),
    )
    fields.done()
    return ref


# Thousands of versions belong to a handful of bases; each is built, and kept in memory, once.
@lru_cache(maxsize=256)
def _ref(
    base_id: str, fingerprint: str, tokenizer: str | None, architecture: str, context: int | None
) -> BaseRef:
    tokens = None if tokenizer is None else Digest.parse(tokenizer)
    return BaseRef(base_id, Digest.parse(fingerprint), tokens, architecture, context)


def _tensors_from_json(fields: Fields) -> TensorFile:
    size = fields.integer("size", 1, MAX_TENSOR_BYTES + 8 + MAX_TENSOR_HEADER)
    file = TensorFile(Digest.parse(fields.text("sha256")), size)
    fields.done()
    return file


def _lineage_from_json(fields: Fields) -> Lineage:
    lineage = Lineage(
        data=digest_or_none(fields, "data"),
        code=None if fields.is_null("code") else fields.text("code"),
        parent=digest_or_none(fields, "parent"),
    )
    fields.done()
    return lineage
