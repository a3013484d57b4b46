"""R10: whatever was changed after signing, or was never right, is refused before a tensor is built.

Every bit of a small manifest and of its envelope, every bit of the tensor file's header, bits all over
its data; then a table of cases whose bytes are well-formed and whose meaning is wrong.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foreword.artifact import (
    Digest,
    Geometry,
    LayerGeometry,
    Site,
    canonical,
    tensors,
)
from foreword.artifact.canonical import MAX_BYTES as MAX_MANIFEST
from foreword.artifact.tensors import expected_tensors
from foreword.errors import ForewordError, TrustError
from foreword.signing.envelope import IN_TOTO, MAX_BYTES, Envelope, Signature, sign
from foreword.signing.policy import Purpose, TenantRule, TrustedKey, TrustPolicy
from foreword.signing.statement import Statement
from foreword.signing.verify import MAX_ENVELOPES, SKEW, verify
from tests.artifact.samples import LENGTH, numbers, sample
from tests.signing.made import NOW, attested, envelope, key, policy, signed

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
ME, YOU, CI, STRANGER = key("me"), key("you"), key("ci"), key("stranger")
GOOD = sample()
SIGNED = signed(GOOD, ME)
TRUSTING = policy(ME)


@dataclass(frozen=True)
class Attempt:
    """What somebody hands to `verify`; by default, what is good."""

    manifest: bytes = GOOD.manifest_bytes
    tensors: bytes = GOOD.tensor_bytes
    envelopes: Sequence[bytes] = (SIGNED,)
    policy: TrustPolicy = TRUSTING
    now: datetime = NOW
    purpose: Purpose = "use"

    def run(self) -> None:
        verify(
            self.manifest, self.tensors, self.envelopes, self.policy, self.now,
            purpose=self.purpose,
        )  # fmt: skip


@contextlib.contextmanager
def parsing() -> Iterator[list[int]]:
    """The sizes of all tensor files that are parsed meanwhile."""
    sizes: list[int] = []
    parse = tensors.parse

    def watched(buffer: bytes, *given: Any, **named: Any) -> Any:
        sizes.append(len(buffer))
        return parse(buffer, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "parse", watched)
        yield sizes


def flips(data: bytes, bits: Sequence[int]) -> Iterator[bytes]:
    """The data with one bit changed, for each of these bits."""
    buffer = bytearray(data)
    for bit in bits:
        buffer[bit // 8] ^= 1 << bit % 8
        yield bytes(buffer)
        buffer[bit // 8] ^= 1 << bit % 8


def codes(attempts: Iterator[Attempt]) -> Counter[str]:
    """How each attempt was refused; every one has to be, by the type that names the fault."""
    found: Counter[str] = Counter()
    for attempt in attempts:
        try:
            attempt.run()
        except TrustError as e:
            found[e.code] += 1
        else:
            raise AssertionError(f"accepted after {found.total()} refusals")
    return found


def test_the_untouched_artifact_is_accepted_and_built_once() -> None:
    with parsing() as sizes:
        Attempt().run()
    assert sizes == [len(GOOD.tensor_bytes)]


def test_every_bit_of_the_manifest() -> None:
    bits = range(8 * len(GOOD.manifest_bytes))
    with parsing() as sizes:
        found = codes(Attempt(manifest=m) for m in flips(GOOD.manifest_bytes, bits))
    assert found == {"trust.subject": len(bits)}
    assert sizes == []


def test_every_bit_of_the_envelope() -> None:
    bits = range(8 * len(SIGNED))
    with parsing() as sizes:
        found = codes(Attempt(envelopes=(e,)) for e in flips(SIGNED, bits))
    assert found.total() == len(bits)
    assert sizes == []
    assert set(found) == {
        "trust.envelope", "trust.envelope_form", "trust.payload_type",
        "trust.signature", "trust.unknown_key",
    }  # fmt: skip
    # Payload and signature are most of it; of the rest, the key id is the largest part.
    assert found["trust.signature"] > len(bits) / 3
    assert found["trust.unknown_key"] > 64


def test_every_bit_of_an_ecdsa_signature() -> None:
    signer = key("curve", "ecdsa-sha2-nistp256")
    made, trusting = envelope(GOOD, signer), policy(signer)
    signature = made.signatures[0].signature
    envelopes = (
        dataclasses.replace(made, signatures=(Signature(signer.id, flipped),)).to_bytes()
        for flipped in flips(signature, range(8 * len(signature)))
    )
    found = codes(Attempt(envelopes=(e,), policy=trusting) for e in envelopes)
    assert found == {"trust.signature": 8 * len(signature)}


def test_every_bit_of_the_tensor_header() -> None:
    end = 8 + int.from_bytes(GOOD.tensor_bytes[:8], "little")
    with parsing() as sizes:
        found = codes(Attempt(tensors=t) for t in flips(GOOD.tensor_bytes, range(8 * end)))
    assert found == {"trust.tensors": 8 * end}
    assert sizes == []


def test_bits_all_over_the_data() -> None:
    layer = LayerGeometry(8, 64, 64)
    geometry = Geometry({Site.DECODER: dict.fromkeys(range(4), layer)})
    specs = expected_tensors(geometry, 32, "float32")
    large = sample(
        geometry=geometry, length=32, tensors={spec.name: numbers(spec) for spec in specs}
    )
    size = len(large.tensor_bytes)
    assert size > 500_000
    chance = random.Random(10)
    bits = [8 * byte + chance.randrange(8) for byte in range(0, size, 4096)]
    bits += [chance.randrange(8 * size) for _ in range(2000)]
    good = Attempt(large.manifest_bytes, large.tensor_bytes, (signed(large, ME),))
    good.run()
    with parsing() as sizes:
        attempts = (dataclasses.replace(good, tensors=t) for t in flips(large.tensor_bytes, bits))
        assert codes(attempts) == {"trust.tensors": len(bits)}
    assert sizes == []


# Other artifacts, each sound in itself.
BASE = GOOD.manifest.base
OTHER_NAME = sample(name="acme/other")
OTHER_TENANT = sample(name="rival/support")
NO_TENANT = sample(name="support")
OTHER_VERSION = sample(version="1.2.4")
OTHER_BASE = sample(base=dataclasses.replace(BASE, fingerprint=Digest.of(b"other weights")))
OTHER_TOKENIZER = sample(base=dataclasses.replace(BASE, tokenizer=Digest.of(b"other words")))
SHORTER = sample(
    length=LENGTH - 1,
    tensors={s.name: numbers(s) for s in expected_tensors(GOOD.manifest.geometry, 2, "float32")},
)
OTHER_NUMBERS = sample(
    tensors={
        s.name: numbers(s, 9.0) for s in expected_tensors(GOOD.manifest.geometry, 3, "float32")
    }
)
OLD = sample(version="1.2.3-rc.9")


def trusted(**changes: Any) -> TrustPolicy:
    """A policy that trusts one key, which is special in something."""
    return policy(dataclasses.replace(TrustedKey(ME.public, "me"), **changes))


def toml(old: str, new: str) -> TrustPolicy:
    """A policy from a file in which one text was replaced."""
    good = TRUSTING.to_toml().decode()
    assert old in good
    return TrustPolicy.from_toml(good.replace(old, new, 1).encode())


def stated(**changes: Any) -> bytes:
    """An envelope, rightly signed, over a statement with other facts in it."""
    return sign(
        dataclasses.replace(Statement.about(GOOD, NOW), **changes).to_bytes(), ME
    ).to_bytes()


def said(change: Callable[[dict[str, Any]], object]) -> bytes:
    """An envelope, rightly signed, over a payload that was edited as JSON."""
    payload = json.loads(Statement.about(GOOD, NOW).to_bytes())
    change(payload)
    return sign(canonical.encode(payload), ME).to_bytes()


def written(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The good envelope, edited as JSON."""
    value = json.loads(SIGNED)
    change(value)
    return canonical.encode(value)


def evaluated(*more: bytes, **changes: Any) -> Attempt:
    """An attempt where an evaluation is asked for, by a policy that trusts two keys."""
    trusting = policy(ME, TrustedKey(CI.public, "ci", **changes), require=("evaluation",))
    return Attempt(envelopes=(SIGNED, *more), policy=trusting)


OURS, THEIRS = Envelope.from_bytes(SIGNED), envelope(OTHER_VERSION, ME)
B64 = base64.b64encode(OURS.payload)
GARBAGE = b'{"name":"acme/support"}'

CASES: dict[str, tuple[Callable[[], Attempt], str]] = {
    # nobody we know
    "not signed": (lambda: Attempt(envelopes=()), "trust.unsigned"),
    "signed by a stranger": (
        lambda: Attempt(envelopes=(signed(GOOD, STRANGER),)), "trust.unknown_key",
    ),
    "an empty policy": (lambda: Attempt(policy=TrustPolicy()), "trust.unknown_key"),
    "only attested": (lambda: Attempt(envelopes=(attested(GOOD, ME),)), "trust.unsigned"),
    # signatures
    "a stranger's signature under a known id": (
        lambda: Attempt(envelopes=(_under(ME.id, STRANGER.sign(OURS.pae())),)), "trust.signature",
    ),
    "the signature of another envelope": (
        lambda: Attempt(envelopes=(_under(ME.id, THEIRS.signatures[0].signature),)),
        "trust.signature",
    ),
    "a signature over the payload without its type": (
        lambda: Attempt(envelopes=(_under(ME.id, ME.sign(OURS.payload)),)), "trust.signature",
    ),
    "a key of another kind under a known id": (
        lambda: Attempt(
            envelopes=(_under(ME.id, key("curve", "ecdsa-sha2-nistp256").sign(OURS.pae())),)
        ),
        "trust.signature",
    ),
    "a broken envelope beside a good one": (
        lambda: Attempt(envelopes=(SIGNED, _under(ME.id, b"\0" * 64))), "trust.signature",
    ),
    # keys
    "the key is revoked": (lambda: Attempt(policy=trusted(status="revoked")), "trust.key_revoked"),
    "the key has expired": (
        lambda: Attempt(policy=trusted(not_after=NOW - SECOND)), "trust.key_expired",
    ),
    "the key has expired since": (
        lambda: Attempt(policy=trusted(not_after=NOW), now=NOW + SECOND), "trust.key_expired",
    ),
    "the key does not count yet": (
        lambda: Attempt(policy=trusted(not_before=NOW + SECOND)), "trust.key_not_yet",
    ),
    "the key is retiring and this is new": (
        lambda: Attempt(policy=trusted(status="retiring"), purpose="publish"),
        "trust.key_retiring",
    ),
    "the key speaks for another tenant": (
        lambda: Attempt(policy=trusted(tenants=("rival",))), "trust.tenant",
    ),
    "the key's tenant only begins like this one": (
        lambda: Attempt(policy=trusted(tenants=("acm", "acme2"))), "trust.tenant",
    ),
    "a tenant's key signs a name without a tenant": (
        lambda: Attempt(
            NO_TENANT.manifest_bytes, NO_TENANT.tensor_bytes, (signed(NO_TENANT, ME),),
            trusted(tenants=("support",)),
        ),
        "trust.tenant",
    ),
    "the key may only review": (lambda: Attempt(policy=trusted(may=("review",))), "trust.role"),
    # thresholds
    "one key twice for two": (
        lambda: Attempt(
            envelopes=(SIGNED, stated(signed=NOW - SECOND)), policy=policy(ME, YOU, threshold=2)
        ),
        "trust.threshold",
    ),
    "one envelope twice for two": (
        lambda: Attempt(envelopes=(SIGNED, SIGNED), policy=policy(ME, YOU, threshold=2)),
        "trust.threshold",
    ),
    "one of two keys has expired": (
        lambda: Attempt(
            envelopes=(signed(GOOD, ME, YOU),),
            policy=policy(ME, TrustedKey(YOU.public, "you", not_after=NOW - HOUR), threshold=2),
        ),
        "trust.threshold",
    ),
    "the tenant asks for more than all others": (
        lambda: Attempt(
            policy=TrustPolicy(TRUSTING.keys, {"*": TenantRule(1), "acme": TenantRule(2)})
        ),
        "trust.threshold",
    ),
    "a threshold of none": (
        lambda: Attempt(envelopes=(), policy=toml("threshold = 1", "threshold = 0")),
        "trust.policy_value",
    ),
    # other things were signed
    "the manifest in another spelling": (
        lambda: Attempt(json.dumps(json.loads(GOOD.manifest_bytes)).encode()), "trust.subject",
    ),
    "the manifest cut off": (lambda: Attempt(GOOD.manifest_bytes[:-1]), "trust.subject"),
    "something after the manifest": (lambda: Attempt(GOOD.manifest_bytes + b"\n"), "trust.subject"),
    "another name's envelope": (
        lambda: Attempt(envelopes=(signed(OTHER_NAME, ME),)), "trust.subject",
    ),
    "another version's envelope": (
        lambda: Attempt(envelopes=(THEIRS.to_bytes(),)), "trust.subject",
    ),
    "another base was signed": (
        lambda: Attempt(envelopes=(signed(OTHER_BASE, ME),)), "trust.subject",
    ),
    "another tokenizer was signed": (
        lambda: Attempt(envelopes=(signed(OTHER_TOKENIZER, ME),)), "trust.subject",
    ),
    "another length was signed": (
        lambda: Attempt(envelopes=(signed(SHORTER, ME),)), "trust.subject",
    ),
    "another artifact's envelope beside the right one": (
        lambda: Attempt(envelopes=(SIGNED, THEIRS.to_bytes())), "trust.subject",
    ),
    "tensors of other numbers": (
        lambda: Attempt(tensors=OTHER_NUMBERS.tensor_bytes), "trust.tensors",
    ),
    "tensors of another length": (lambda: Attempt(tensors=SHORTER.tensor_bytes), "trust.tensors"),
    "tensors cut off": (lambda: Attempt(tensors=GOOD.tensor_bytes[:-1]), "trust.tensors"),
    "something after the tensors": (
        lambda: Attempt(tensors=GOOD.tensor_bytes + b"\0"), "trust.tensors",
    ),
    "no tensors": (lambda: Attempt(tensors=b""), "trust.tensors"),
    "other tensors were signed": (
        lambda: Attempt(envelopes=(stated(tensors=Digest.of(b"others")),)), "trust.tensors",
    ),
    "another name was signed": (
        lambda: Attempt(envelopes=(stated(name="acme/other"),)), "trust.name",
    ),
    "another tenant was signed": (
        lambda: Attempt(envelopes=(stated(name="rival/support"),)), "trust.name",
    ),
    "another version was signed": (
        lambda: Attempt(envelopes=(stated(version="1.2.4"),)), "trust.version",
    ),
    "signed in the future": (
        lambda: Attempt(envelopes=(stated(signed=NOW + SKEW + SECOND),)), "trust.signed_ahead",
    ),
    # the statement
    "another type of payload, not signed": (
        lambda: Attempt(envelopes=(written(lambda e: e.update(payloadType="text/plain")),)),
        "trust.payload_type",
    ),
    "another type of payload, signed": (
        lambda: Attempt(envelopes=(sign(OURS.payload, ME, "application/json").to_bytes(),)),
        "trust.payload_type",
    ),
    "the type with a capital": (
        lambda: Attempt(envelopes=(sign(OURS.payload, ME, IN_TOTO.title()).to_bytes(),)),
        "trust.payload_type",
    ),
    "another predicate": (
        lambda: Attempt(envelopes=(said(lambda s: s.update(predicateType="urn:other:v1")),)),
        "trust.predicate",
    ),
    "one more subject": (
        lambda: Attempt(envelopes=(said(lambda s: s["subject"].append(s["subject"][0])),)),
        "trust.statement",
    ),
    "a weaker digest beside the right one": (
        lambda: Attempt(
            envelopes=(said(lambda s: s["subject"][0]["digest"].update(md5="0" * 32)),)
        ),
        "trust.statement",
    ),
    "a statement in another spelling": (
        lambda: Attempt(envelopes=(sign(b" " + OURS.payload, ME).to_bytes(),)), "trust.statement",
    ),
    "an artifact that is none, rightly signed": (
        lambda: Attempt(
            manifest=GARBAGE, envelopes=(stated(artifact=Digest.of(GARBAGE)),)
        ),
        "manifest.missing_field",
    ),
    "other numbers than the manifest's, rightly signed": (
        lambda: Attempt(
            tensors=OTHER_NUMBERS.tensor_bytes,
            envelopes=(stated(tensors=OTHER_NUMBERS.manifest.tensors.sha256),),
        ),
        "artifact.digest",
    ),
    # the envelope
    "a key inside a signature": (
        lambda: Attempt(
            envelopes=(written(lambda e: e["signatures"][0].update(key=STRANGER.public.pem)),)
        ),
        "trust.envelope_field",
    ),
    "a certificate beside the signatures": (
        lambda: Attempt(envelopes=(written(lambda e: e.update(cert="MII")),)),
        "trust.envelope_field",
    ),
    "a signature twice": (
        lambda: Attempt(
            envelopes=(written(lambda e: e["signatures"].append(e["signatures"][0])),)
        ),
        "trust.envelope_signatures",
    ),
    "no signature": (
        lambda: Attempt(envelopes=(written(lambda e: e["signatures"].clear()),)),
        "trust.envelope_signatures",
    ),
    "an envelope in another spelling": (
        lambda: Attempt(envelopes=(json.dumps(json.loads(SIGNED)).encode(),)),
        "trust.envelope_form",
    ),
    "a payload in base64 with spare bits": (
        lambda: Attempt(envelopes=(sign(b"AB", ME).to_bytes().replace(b"QUI=", b"QUJ="),)),
        "trust.envelope_form",
    ),
    "something after the envelope": (
        lambda: Attempt(envelopes=(SIGNED + b"\n",)), "trust.envelope_form",
    ),
    "an envelope cut off": (lambda: Attempt(envelopes=(SIGNED[:-1],)), "trust.envelope"),
    "an empty envelope": (lambda: Attempt(envelopes=(SIGNED, b"")), "trust.envelope"),
    "an envelope without end": (
        lambda: Attempt(envelopes=(SIGNED + b" " * MAX_BYTES,)), "trust.too_large",
    ),
    "envelopes without end": (
        lambda: Attempt(envelopes=(SIGNED,) * (MAX_ENVELOPES + 1)), "trust.too_large",
    ),
    "a manifest without end": (
        lambda: Attempt(manifest=b" " * (MAX_MANIFEST + 1)), "trust.too_large",
    ),
    # attestations
    "no evaluation": (evaluated, "trust.attestation_missing"),
    "a review instead of an evaluation": (
        lambda: evaluated(attested(GOOD, CI, "review")), "trust.attestation_missing",
    ),
    "an evaluation by a stranger": (
        lambda: evaluated(attested(GOOD, STRANGER)), "trust.attestation_missing",
    ),
    "an evaluation by who may not": (
        lambda: evaluated(attested(GOOD, CI), may=("review",)), "trust.role",
    ),
    "an evaluation by a revoked key": (
        lambda: evaluated(attested(GOOD, CI), status="revoked"), "trust.key_revoked",
    ),
    "an evaluation of another digest": (
        lambda: evaluated(attested(OTHER_VERSION, CI)), "trust.subject",
    ),
    "an evaluation that failed": (
        lambda: evaluated(attested(GOOD, CI, "evaluation", "fail")), "trust.attestation_verdict",
    ),
    "an evaluation that could not tell": (
        lambda: evaluated(attested(GOOD, CI, "evaluation", "insufficient")),
        "trust.attestation_verdict",
    ),
    "an evaluation that failed later": (
        lambda: evaluated(
            attested(GOOD, CI, now=NOW - HOUR), attested(GOOD, CI, "evaluation", "fail")
        ),
        "trust.attestation_verdict",
    ),
    # what was taken back
    "the digest is revoked": (
        lambda: Attempt(policy=TRUSTING.with_revoked(GOOD.digest, "leaked")),
        "trust.digest_revoked",
    ),
    "older than the floor": (
        lambda: Attempt(policy=policy(ME, floors={"acme/support": "1.2.4"})), "trust.floor",
    ),
    "a candidate of the floor": (
        lambda: Attempt(
            OLD.manifest_bytes, OLD.tensor_bytes, (signed(OLD, ME),),
            policy(ME, floors={"acme/support": "1.2.3"}),
        ),
        "trust.floor",
    ),
    # the policy
    "the policy has expired": (
        lambda: Attempt(policy=policy(ME, expires=NOW)), "trust.policy_expired",
    ),
    "a word in the policy that nobody knows": (
        lambda: Attempt(policy=toml("status", "stats")), "trust.policy_unknown",
    ),
    "a policy that is no TOML": (lambda: Attempt(policy=toml("=", "")), "trust.policy"),
}  # fmt: skip


def _under(key_id: str, signature: bytes) -> bytes:
    return dataclasses.replace(OURS, signatures=(Signature(key_id, signature),)).to_bytes()


@pytest.mark.parametrize("case", CASES)
def test_what_is_well_formed_and_wrong(case: str) -> None:
    attempt, code = CASES[case]
    with parsing() as sizes, pytest.raises(ForewordError) as caught:
        attempt().run()
    assert caught.value.code == code, str(caught.value)
    assert sizes == []
    assert str(caught.value).isprintable()


def test_there_is_a_case_for_every_code_in_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs" / "signing.md").read_text()
    documented = set(re.findall(r"`(trust\.[a-z_]+)`", text))
    elsewhere = {code for code in documented if code.startswith("trust.oms")}
    elsewhere |= {"trust.policy_missing", "trust.toml"}
    assert {code for _, code in CASES.values() if code.startswith("trust.")} == (
        documented - elsewhere
    )
