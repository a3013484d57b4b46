"""A DSSE v1 envelope: bytes, what kind of bytes they are, and signatures over both.

https://github.com/secure-systems-lab/dsse says what is signed: the pre-authentication encoding (PAE) of
payload type and payload, so the payload is never re-encoded to verify it. The signing itself and the PAE
are securesystemslib's; this file is the strict reader and the writer.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from securesystemslib.dsse import Envelope as DsseEnvelope

from foreword.artifact import canonical
from foreword.artifact.digest import Digest
from foreword.artifact.fields import Fields
from foreword.errors import ArtifactError, TrustError
from foreword.signing.keys import PublicKey, SigningKey

IN_TOTO = "application/vnd.in-toto+json"
"""The payload is an in-toto statement (`statement.py`)."""

MAX_BYTES = 64 << 10
MAX_SIGNATURES = 16
_MAX_SIGNATURE = 512
_MAX_TYPE = 256
_KINDS = {
    "json.not_canonical": "form",
    "manifest.unknown_field": "field",
    "manifest.range": "signatures",
}
"""What our reader of JSON says, and the ending of our own code for it."""


@dataclass(frozen=True)
class Signature:
    """Who signed, by key id, and the raw signature."""

    key_id: str
    signature: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload and who put a name to it; nothing here says whether a signature is good."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        ids = [signature.key_id for signature in self.signatures]
        if not 1 <= len(ids) <= MAX_SIGNATURES:
            _refuse("signatures", f"expected 1 to {MAX_SIGNATURES} signatures, got {len(ids)}")
        if len(set(ids)) != len(ids):
            _refuse("signatures", "a key signs once, one key id stands there twice")

    def to_bytes(self) -> bytes:
        """Canonical JSON, without a line break.

        Raises:
            TrustError: it would be larger than a reader takes (`trust.too_large`).
        """
        data = canonical.encode(
            {
                "payload": _to_base64(self.payload),
                "payloadType": self.payload_type,
                "signatures": [
                    {"keyid": entry.key_id, "sig": _to_base64(entry.signature)}
                    for entry in self.signatures
                ],
            }
        )
        _check_size(data)
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """Read exactly what `to_bytes` writes; anything else is refused.

        Raises:
            TrustError: the codes `trust.too_large` and `trust.envelope*`, see docs/signing.md.
        """
        _check_size(data)
        try:
            return _from_json(canonical.decode(data))
        except ArtifactError as e:
            _refuse(_KINDS.get(e.code), str(e), e)

    def pae(self) -> bytes:
        """The bytes that are signed (DSSE v1, `PAE(type, payload)`)."""
        return bytes(DsseEnvelope(self.payload, self.payload_type, {}).pae())

    def verified_by(self, key: PublicKey) -> bool:
        """True if this key's signature is there and good."""
        return any(
            entry.key_id == key.id and key.verifies(entry.signature, self.pae())
            for entry in self.signatures
        )


def sign(payload: bytes, key: SigningKey, payload_type: str = IN_TOTO) -> Envelope:
    """An envelope with one signature."""
    unsigned = bytes(DsseEnvelope(payload, payload_type, {}).pae())
    return Envelope(payload_type, payload, (Signature(key.id, key.sign(unsigned)),))


def add_signature(envelope: Envelope, key: SigningKey) -> Envelope:
    """The same payload, signed by one more key.

    Raises:
        TrustError: the key has signed it already, or there is no room (`trust.envelope_signatures`).
    """
    signature = Signature(key.id, key.sign(envelope.pae()))
    return replace(envelope, signatures=(*envelope.signatures, signature))


def _from_json(value: Any) -> Envelope:
    fields = Fields(value, "envelope")
    payload = _from_base64(fields.text("payload"), MAX_BYTES, "payload")
    payload_type = fields.text("payloadType")
    if not 1 <= len(payload_type) <= _MAX_TYPE or not payload_type.isprintable():
        _refuse(None, f"expected a payload type, got {payload_type[:80]!r}")
    signatures = tuple(_signature(entry) for entry in fields.objects("signatures", MAX_SIGNATURES))
    fields.done()
    return Envelope(payload_type, payload, signatures)


def _signature(fields: Fields) -> Signature:
    key_id = str(Digest.parse(fields.text("keyid")))
    signature = _from_base64(fields.text("sig"), _MAX_SIGNATURE, "sig")
    fields.done()
    return Signature(key_id, signature)


def _check_size(data: bytes) -> None:
    if len(data) > MAX_BYTES:
        raise TrustError(
            f"an envelope has at most {MAX_BYTES} bytes, got {len(data)}", code="trust.too_large"
        )


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(text: str, most: int, what: str) -> bytes:
    try:
        data = base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, ValueError) as e:
        _refuse(None, f"{what}: expected base64 ({str(e)[:80]})", e)
    if not 1 <= len(data) <= most:
        _refuse(None, f"{what}: expected 1 to {most} bytes, got {len(data)}")
    if _to_base64(data) != text:  # spare bits in the last letter, or another alphabet
        _refuse("form", f"{what}: the base64 is not in its one canonical form")
    return data


def _refuse(kind: str | None, reason: str, cause: Exception | None = None) -> NoReturn:
    raise TrustError(
        f"{reason}; the envelope was changed or made by another tool, sign the artifact again",
        code=f"trust.envelope_{kind}" if kind else "trust.envelope",
    ) from cause
