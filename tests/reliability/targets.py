"""The readers of bytes from outside, each with mutants to feed it and another reader to compare with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any

import safetensors
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope as DsseEnvelope

from foreword.artifact import Artifact, Digest, Geometry, LayerGeometry, Probe, Site, canonical
from foreword.artifact.package import from_bytes
from foreword.artifact.tensors import expected_tensors, parse
from foreword.errors import ArtifactError, ForewordError, TrustError
from foreword.signing.envelope import IN_TOTO, Envelope, Signature
from foreword.signing.keys import PublicKey
from foreword.signing.policy import TenantRule, TrustedKey, TrustPolicy
from foreword.signing.statement import Finding, Statement
from tests.artifact.samples import sample
from tests.reliability import mutation

Parts = tuple[bytes, ...]
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Target:
    """A reader, the maker of its mutants, and a second reader to compare it with."""

    name: str
    make: Callable[[Random], Parts]
    read: Callable[..., Any]
    agrees: Callable[..., bool]
    """Given what was accepted and the input: True if an independent reader reads the same."""
    refusal: type[ForewordError]
    """The only exception the reader may raise."""
    share: float
    """Of all inputs."""


# Artifacts


@dataclass(frozen=True)
class _Seed:
    """A good artifact, cut so that other tensors can be put into its manifest quickly."""

    artifact: Artifact
    manifest: mutation.Tree
    before: bytes
    after: bytes

    def sealed(self, tensors: bytes) -> Parts:
        """The manifest with these tensors' size and digest: the mutation gets behind that check."""
        file = {"sha256": str(Digest.of(tensors)), "size": len(tensors)}
        return self.before + canonical.encode(file) + self.after, tensors


@cache
def seeds() -> tuple[_Seed, ...]:
    """Artifacts of every type, of one and of several sites, with equal and with odd layers."""
    wide, odd = LayerGeometry(2, 4, 4), LayerGeometry(1, 3, 5)
    geometries: Sequence[dict[Site, dict[int, LayerGeometry]]] = (
        {Site.DECODER: {0: wide, 1: wide}, Site.CROSS: {1: odd}},
        {Site.DECODER: {0: wide}},
        {Site.ENCODER: {0: odd, 7: wide}},
        {Site.DECODER: dict.fromkeys(range(6), odd)},
    )
    made: list[Artifact] = []
    for layers in geometries:
        for dtype in ("float32", "bfloat16", "float16"):
            specs = expected_tensors(Geometry(layers), 2, dtype)
            numbers = {spec.name: b"\x01\x3c" * (spec.nbytes // 2) for spec in specs}
            probes = (Probe((5, 6), (0, 9), (0.25, -1.5)),) * (len(made) % 3)
            made.append(
                sample(
                    geometry=Geometry(layers), dtype=dtype, length=2, tensors=numbers, probes=probes
                )
            )
    return tuple(map(_seed, made))


def _seed(artifact: Artifact) -> _Seed:
    data = artifact.manifest_bytes
    place = re.search(rb'(?<="tensors":)\{[^}]*\}', data)
    if place is None:
        raise ValueError("a manifest without tensors")
    root = mutation.tree(json.loads(data))
    return _Seed(artifact, root, data[: place.start()], data[place.end() :])


def _manifests() -> list[bytes]:
    return [seed.artifact.manifest_bytes for seed in seeds()]


def _make_artifact(rng: Random) -> Parts:
    seed, kind = rng.choice(seeds()), rng.random()
    tensors = seed.artifact.tensor_bytes
    if kind < 0.02:
        return _at_the_limits(rng, seed.manifest), tensors
    if kind < 0.40:
        return _changed_json(rng, seed.manifest), tensors
    if kind < 0.48:
        return mutation.mutate_bytes(rng, seed.artifact.manifest_bytes, _manifests()), tensors
    if kind < 0.86:
        return seed.sealed(mutation.mutate_tensor_file(rng, tensors))
    changed = mutation.mutate_bytes(rng, tensors, _tensor_files())
    return seed.sealed(changed) if kind < 0.96 else (seed.artifact.manifest_bytes, changed)


def _at_the_limits(rng: Random, root: mutation.Tree) -> bytes:
    """Every size of a manifest at, or just over, what the format allows."""
    limits = {"length": 65_536, "kv_heads": 1_024, "key_dim": 4_096, "value_dim": 4_096,
              "layer": 1_024, "size": (4 << 30) + 8 + (1 << 20), "context": 1 << 40}  # fmt: skip
    over = rng.random() < 0.3

    def changed(node: mutation.Tree, key: str = "") -> mutation.Tree:
        if isinstance(node, mutation.Members):
            return mutation.Members([name, changed(inner, name)] for name, inner in node)
        if isinstance(node, list):
            return [changed(inner) for inner in node]
        if key not in limits or rng.random() < 0.2:
            return node
        return limits[key] + (over and rng.random() < 0.2)

    return mutation.write(changed(root))


def _same_artifact(value: Artifact, manifest: bytes, tensors: bytes) -> bool:
    theirs = safetensors.deserialize(tensors)
    return (
        value.manifest.to_bytes() == manifest
        and value.digest == Digest.of(manifest)
        and {name: bytes(entry["data"]) for name, entry in theirs}
        == {name: bytes(view) for name, view in value.tensors().items()}
    )


# Tensor files, and canonical JSON


def _tensor_files() -> list[bytes]:
    return [seed.artifact.tensor_bytes for seed in seeds()]


def _make_tensors(rng: Random) -> Parts:
    place = rng.randrange(len(seeds()))
    data = seeds()[place].artifact.tensor_bytes
    if rng.random() < 0.8:
        data = mutation.mutate_tensor_file(rng, data)
    else:
        data = mutation.mutate_bytes(rng, data, _tensor_files())
    return data, place.to_bytes(1)


@cache
def _specs(place: int) -> Any:
    manifest = seeds()[place].artifact.manifest
    return expected_tensors(manifest.geometry, manifest.length, manifest.dtype)


def _read_tensors(data: bytes, place: bytes) -> Any:
    return parse(data, _specs(place[0]))


def _same_tensors(value: Any, data: bytes, place: bytes) -> bool:
    theirs = dict(safetensors.deserialize(data))
    return theirs.keys() == value.keys() and all(
        bytes(theirs[spec.name]["data"]) == bytes(value[spec.name])
        and tuple(theirs[spec.name]["shape"]) == spec.shape
        for spec in _specs(place[0])
    )


def _changed_json(rng: Random, root: mutation.Tree) -> bytes:
    changed = mutation.mutate_tree(rng, root, rng.choice([1, 1, 1, 2, 3]))
    if rng.random() < 0.85:  # in canonical form, or it would end at that check
        return mutation.write(changed)
    return mutation.respelled(rng, changed)


def _make_json(rng: Random) -> Parts:
    if rng.random() < 0.3:
        return (mutation.mutate_bytes(rng, rng.choice(_manifests()), _manifests()),)
    return (_changed_json(rng, rng.choice(seeds()).manifest),)


def _same_json(value: Any, data: bytes) -> bool:
    return bool(json.loads(data) == value and canonical.encode(value) == data)


# What is signed, and the policy


@cache
def _keys() -> tuple[PublicKey, ...]:
    privates = [Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in range(3)]
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return tuple(
        PublicKey.from_pem(key.public_key().public_bytes(serialization.Encoding.PEM, form))
        for key in privates
    )


@cache
def _statements() -> tuple[bytes, ...]:
    artifact = seeds()[0].artifact
    findings = (
        None,
        Finding("review", "pass", {}),
        Finding("evaluation", "fail", {"loss": [0.5, 1]}),
    )
    return tuple(Statement.about(artifact, NOW, finding).to_bytes() for finding in findings)


@cache
def _envelopes() -> tuple[bytes, ...]:
    return tuple(
        Envelope(
            IN_TOTO,
            payload,
            tuple(
                Signature(key.id, bytes(range(i, i + 64))) for i, key in enumerate(_keys()[:count])
            ),
        ).to_bytes()
        for payload in _statements()
        for count in (1, 3)
    )


@cache
def _policies() -> tuple[bytes, ...]:
    first, second, third = _keys()
    policy = TrustPolicy(
        keys={
            first.id: TrustedKey(first, "lead", ("*",)),
            second.id: TrustedKey(
                second, "acme", ("acme",), ("sign", "review"), NOW, None, "retiring"
            ),
            third.id: TrustedKey(third, "old", ("*",), ("*",), None, NOW, "revoked"),
        },
        tenants={"*": TenantRule(), "acme": TenantRule(2, ("review", "evaluation"))},
        revoked={Digest.of(b"bad"): 'it "leaked"'},
        floors={"acme/support": "1.2.3"},
        expires=NOW,
    )
    return policy.to_toml(), TrustPolicy().to_toml()


_TOML = (b"1", b"-1", b"0", b"true", b"1.5", b"nan", b"inf", b"[]", b"{}", b'""', b"''", b'"*"',
         b"0x" + b"f" * 5000, b"0x" + b"f" * 20, b"9" * 5000, b"1979-05-27", b"07:32:00",
         b"9999-12-31T23:59:59Z", b"0001-01-01T00:00:00+23:59", b"2026-01-31T12:00:00",
         b'["review"]', b'["*", 1]', b'"\\u0000"', b'"\\ud800"', b'"""\n"""', b"[keys]", b'[keys."a"]',
         b"[[keys]]", b"a" + b".a" * 900, b"a" + b".a" * 8_000, b"[" * 2000, b"keys.lead.x = 1", b"# \x1b[2J",
         b"{a = {a = 1}}", "'\u202e'".encode())  # fmt: skip


def _make_statement(rng: Random) -> Parts:
    data = rng.choice(_statements())
    if rng.random() < 0.2:
        return (mutation.mutate_bytes(rng, data, _statements()),)
    return (_changed_json(rng, json.loads(data)),)


def _rewrites(value: Any, data: bytes) -> bool:
    return bool(value.to_bytes() == data)


def _make_envelope(rng: Random) -> Parts:
    data = rng.choice(_envelopes())
    if rng.random() < 0.2:
        return (mutation.mutate_bytes(rng, data, _envelopes()),)
    return (_changed_json(rng, json.loads(data)),)


def _same_envelope(value: Envelope, data: bytes) -> bool:
    theirs = DsseEnvelope.from_dict(json.loads(data))
    return (
        value.to_bytes() == data
        and (theirs.payload, theirs.payload_type) == (value.payload, value.payload_type)
        and theirs.pae() == value.pae()
        and list(theirs.signatures) == [entry.key_id for entry in value.signatures]
    )


def _make_policy(rng: Random) -> Parts:
    data = rng.choice(_policies())
    if rng.random() < 0.3:
        return (mutation.mutate_bytes(rng, data, _policies()),)
    return (mutation.mutate_lines(rng, data, _TOML),)


def _same_policy(value: TrustPolicy, data: bytes) -> bool:
    return TrustPolicy.from_toml(value.to_toml()) == value


TARGETS = {
    target.name: target
    for target in (
        Target("artifact", _make_artifact, from_bytes, _same_artifact, ArtifactError, 0.40),
        Target("tensors", _make_tensors, _read_tensors, _same_tensors, ArtifactError, 0.20),
        Target("json", _make_json, canonical.decode, _same_json, ArtifactError, 0.15),
        Target("envelope", _make_envelope, Envelope.from_bytes, _same_envelope, TrustError, 0.10),
        Target("statement", _make_statement, Statement.from_bytes, _rewrites, TrustError, 0.08),
        Target("policy", _make_policy, TrustPolicy.from_toml, _same_policy, TrustError, 0.07),
    )
}
"""Every reader of bytes that somebody else may have written."""
