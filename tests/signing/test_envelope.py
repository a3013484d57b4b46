"""Envelopes: one form for one meaning, and the same meaning in securesystemslib."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as Theirs
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from foreword.artifact import canonical
from foreword.errors import TrustError
from foreword.signing.envelope import (
    IN_TOTO,
    MAX_BYTES,
    MAX_SIGNATURES,
    Envelope,
    Signature,
    add_signature,
    sign,
)
from foreword.signing.keys import SCHEMES, PublicKey, Scheme
from tests.signing.made import key

PAYLOAD = '{"größer":"als π"}'.encode()


def theirs(public: PublicKey) -> SSlibKey:
    loaded = serialization.load_pem_public_key(public.pem.encode())
    return SSlibKey.from_crypto(loaded, public.id)


def refusal(data: bytes) -> str:
    with pytest.raises(TrustError) as caught:
        Envelope.from_bytes(data)
    return caught.value.code


def changed(**changes: Any) -> bytes:
    """A good envelope with some of its fields replaced; None leaves one out."""
    value = json.loads(sign(PAYLOAD, key("me")).to_bytes()) | changes
    return canonical.encode({name: inner for name, inner in value.items() if inner is not None})


def test_what_is_signed_is_the_encoding_of_the_specification() -> None:
    # https://github.com/secure-systems-lab/dsse/blob/master/protocol.md, its test vector
    envelope = Envelope(
        "http://example.com/HelloWorld", b"hello world", (Signature("id", b"signature"),)
    )
    assert envelope.pae() == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@given(
    st.binary(min_size=1, max_size=300),
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40),
)
def test_it_comes_back_as_it_was(payload: bytes, payload_type: str) -> None:
    envelope = sign(payload, key("me"), payload_type)
    again = Envelope.from_bytes(envelope.to_bytes())
    assert again == envelope
    assert again.verified_by(key("me").public)
    assert not again.verified_by(key("you").public)


def test_type_and_payload_are_signed_together() -> None:
    made = sign(b"payload", key("me"))
    for other in (
        Envelope("text/plain", made.payload, made.signatures),
        Envelope(made.payload_type, b"payload.", made.signatures),
    ):
        assert not other.verified_by(key("me").public)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_securesystemslib_verifies_what_we_write(scheme: Scheme) -> None:
    ours = add_signature(sign(PAYLOAD, key("me", scheme)), key("you"))
    read = Theirs.from_dict(json.loads(ours.to_bytes()))
    keys = [theirs(key("me", scheme).public), theirs(key("you").public)]
    accepted = read.verify(keys, threshold=2)
    assert set(accepted) == {key("me", scheme).id, key("you").id}
    assert (read.payload, read.payload_type) == (PAYLOAD, IN_TOTO)
    read.payload += b" "
    with pytest.raises(VerificationError):
        read.verify(keys, threshold=1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_we_verify_what_securesystemslib_writes(scheme: Scheme) -> None:
    signer = _generated(scheme)
    public = PublicKey.from_pem(
        signer._private_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    named = CryptoSigner(signer._private_key, theirs(public))  # DSSE leaves key ids to us
    written = Theirs(PAYLOAD, IN_TOTO, {})
    written.sign(named)
    ours = Envelope.from_bytes(canonical.encode(written.to_dict()))
    assert ours.verified_by(public)
    assert ours.payload == PAYLOAD


def _generated(scheme: Scheme) -> CryptoSigner:
    return CryptoSigner.generate_ed25519() if scheme == "ed25519" else CryptoSigner.generate_ecdsa()


def test_a_good_signature_counts_under_its_own_id_only() -> None:
    (good,) = sign(PAYLOAD, key("me")).signatures
    swapped = Signature(key("me").id, b"\0" * 64), Signature(key("you").id, good.signature)
    envelope = Envelope(IN_TOTO, PAYLOAD, swapped)
    assert not envelope.verified_by(key("me").public)
    assert not envelope.verified_by(key("you").public)


def test_a_key_signs_once() -> None:
    with pytest.raises(TrustError) as caught:
        add_signature(sign(PAYLOAD, key("me")), key("me"))
    assert caught.value.code == "trust.envelope_signatures"


SIG = {"keyid": f"sha256:{'0' * 64}", "sig": "AAAA"}
MANY = [{"keyid": f"sha256:{i:064x}", "sig": "AAAA"} for i in range(MAX_SIGNATURES + 1)]
B64 = base64.b64encode(PAYLOAD).decode()

REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "trust.envelope"),
    "not JSON": (b"envelope", "trust.envelope"),
    "not UTF-8": (b'{"payload":"\xff"}', "trust.envelope"),
    "not an object": (b"[]", "trust.envelope"),
    "cut off": (changed()[:-1], "trust.envelope"),
    "something appended": (changed() + b" ", "trust.envelope_form"),
    "a second document appended": (changed() * 2, "trust.envelope"),
    "a field twice": (changed()[:-1] + b',"payload":"AAAA"}', "trust.envelope"),
    "spaces": (changed().replace(b",", b", ", 1), "trust.envelope_form"),
    "fields in another order": (
        json.dumps(dict(reversed(json.loads(changed()).items()))).replace(" ", "").encode(),
        "trust.envelope_form",
    ),
    "an escape that is not needed": (
        changed().replace(b"payloadType", b"p\\u0061yloadType"), "trust.envelope_form",
    ),
    "no payload": (changed(payload=None), "trust.envelope"),
    "no type": (changed(payloadType=None), "trust.envelope"),
    "no signatures field": (changed(signatures=None), "trust.envelope"),
    "a key beside the signatures": (changed(publicKey="-----BEGIN"), "trust.envelope_field"),
    "a key inside a signature": (
        changed(signatures=[{**SIG, "cert": "MII"}]), "trust.envelope_field",
    ),
    "a key id that is no digest": (
        changed(signatures=[{**SIG, "keyid": "me"}]), "trust.envelope",
    ),
    "no key id": (changed(signatures=[{"sig": "AAAA"}]), "trust.envelope"),
    "an empty payload": (changed(payload=""), "trust.envelope"),
    "an empty type": (changed(payloadType=""), "trust.envelope"),
    "a type that steers a terminal": (changed(payloadType="a\u001b[2J"), "trust.envelope"),
    "a type without end": (changed(payloadType="a" * 257), "trust.envelope"),
    "no signature": (changed(signatures=[]), "trust.envelope_signatures"),
    "a signature twice": (changed(signatures=[SIG, SIG]), "trust.envelope_signatures"),
    "too many signatures": (changed(signatures=MANY), "trust.envelope_signatures"),
    "a signature without bytes": (
        changed(signatures=[{**SIG, "sig": ""}]), "trust.envelope",
    ),
    "a huge signature": (
        changed(signatures=[{**SIG, "sig": "AAAA" * 200}]), "trust.envelope",
    ),
    "base64 of another alphabet": (changed(payload="-_-_"), "trust.envelope"),
    "base64 without its end": (changed(payload="QUI"), "trust.envelope"),
    "base64 with a line break": (changed(payload=f"{B64[:4]}\n{B64[4:]}"), "trust.envelope"),
    "base64 with spare bits": (changed(payload="QUJ="), "trust.envelope_form"),
    "a number for the payload": (changed(payload=1), "trust.envelope"),
    "too large": (changed(payload="A" * MAX_BYTES), "trust.too_large"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_only_what_we_write_is_read(case: str) -> None:
    data, code = REFUSED[case]
    assert refusal(data) == code


@given(st.binary(max_size=200))
def test_noise_is_refused_with_a_typed_error(data: bytes) -> None:
    assert refusal(data).startswith("trust.")


def test_what_a_reader_would_refuse_is_not_written() -> None:
    with pytest.raises(TrustError) as caught:
        sign(b"x" * MAX_BYTES, key("me")).to_bytes()
    assert caught.value.code == "trust.too_large"
