"""A small registry with a past, and the operations that are interrupted on copies of it.

Everything follows from constants, keys too: two processes that do the same thing write the same journal,
hash for hash, so that "the same state" can be compared by one digest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import CryptoSigner, SSlibKey

from foreword.artifact import Digest, Geometry, LayerGeometry, Site
from foreword.artifact.tensors import expected_tensors
from foreword.registry.blobs import BlobStore
from foreword.registry.entries import By, Entry
from foreword.registry.facts import Base
from foreword.registry.gc import gc
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from foreword.signing.envelope import sign
from foreword.signing.keys import PublicKey, SigningKey
from foreword.signing.policy import TrustedKey, TrustPolicy
from foreword.signing.statement import Statement
from tests.artifact.samples import sample

NAME = "acme/support"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LONG_AFTER = datetime(2100, 1, 1, tzinfo=UTC)
"""Every file that is not needed is old enough to go."""

_GEOMETRY = Geometry({Site.DECODER: {0: LayerGeometry(1, 4, 4)}})
_SPECS = expected_tensors(_GEOMETRY, 1, "float16")


@dataclass(frozen=True)
class Signed:
    """A version as it is handed in."""

    manifest: bytes
    tensors: bytes
    envelope: bytes


@cache
def signed(name: str, version: str, variant: int = 0) -> Signed:
    """A signed version; variants of one version have the same number and other bytes."""
    # Numbers of its own, so that every version has three blobs that no other has.
    drawn = sha256(f"{name} {version} {variant}".encode()).digest()
    numbers = b"".join(bytes((low, 0x3C)) for low in drawn)
    artifact = sample(
        name=name, version=version, geometry=_GEOMETRY, length=1, dtype="float16", probes=(),
        tensors={spec.name: numbers[: spec.nbytes] for spec in _SPECS},
    )  # fmt: skip
    envelope = sign(Statement.about(artifact, NOW).to_bytes(), _key())
    return Signed(artifact.manifest_bytes, artifact.tensor_bytes, envelope.to_bytes())


@cache
def policy() -> TrustPolicy:
    """It trusts the key that signs here."""
    return TrustPolicy(keys={_key().id: TrustedKey(_key().public, _key().name)})


@cache
def _key() -> SigningKey:
    private = Ed25519PrivateKey.from_private_bytes(b"a key for tests and nothing else")
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public = PublicKey.from_pem(pem)
    library = SSlibKey.from_crypto(private.public_key(), public.id, public.scheme)
    return SigningKey("tests", public, CryptoSigner(private, library))


def by(reason: str = "a test") -> By:
    return By("tests", NOW, reason)


def publish(registry: Registry, name: str, version: str, variant: int = 0) -> Entry:
    given = signed(name, version, variant)
    return registry.publish(
        given.manifest, given.tensors, (given.envelope,), policy=policy(), by=by()
    )


def declare_base(registry: Registry) -> Entry:
    """The base that every version here was made for."""
    base = Base(sample().manifest.base, _GEOMETRY)
    return registry.declare_base(base, by=by())


def release(registry: Registry, reference: str) -> Entry:
    return registry.release(reference, policy=policy(), by=by())


def prepare(layout: Layout) -> None:
    """A registry where each of the `OPERATIONS` has something to do."""
    init(layout)
    with Registry.open(layout.directory) as registry:
        declare_base(registry)
        for version in ("0.8.0", "0.9.0"):
            publish(registry, NAME, version)
            gc(registry, LONG_AFTER, apply=True)  # 0.8.0 is condemned already
            registry.retire(f"{NAME}@{version}", by=by())
        for version in ("1.0.0", "1.1.0", "1.2.0"):
            publish(registry, NAME, version)
        for version in ("1.0.0", "1.1.0"):
            release(registry, f"{NAME}@{version}")
    (layout.directory / "blobs" / "incoming" / "cut-short.blob").write_bytes(b"half of it")


Done = Callable[[], None]
"""Called as soon as an operation has returned, before anything is closed."""
Operation = Callable[[Layout, Done], None]


def _on_registry(change: Callable[[Registry], object]) -> Operation:
    def operation(layout: Layout, done: Done) -> None:
        with Registry.open(layout.directory) as registry:
            change(registry)
            done()

    return operation


class _Late:
    """A blob store that puts nothing before it is told to."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._held: dict[Digest, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def put(self, data: bytes) -> Digest:
        self._held[Digest.of(data)] = data
        return Digest.of(data)

    def find(self, digest: Digest) -> object:
        return self._held.get(digest) or self._blobs.find(digest)

    def put_now(self) -> None:
        for data in self._held.values():
            self._blobs.put(data)


def _publish_entry_first(registry: Registry) -> None:
    late = _Late(registry.blobs)
    registry.blobs = cast(BlobStore, late)
    publish(registry, NAME, "1.3.0")
    late.put_now()


def _init(layout: Layout, done: Done) -> None:
    init(layout)
    done()


OPERATIONS: dict[str, Operation] = {
    "init": _init,
    "publish": _on_registry(lambda registry: publish(registry, NAME, "1.3.0")),
    "release": _on_registry(lambda registry: release(registry, f"{NAME}@1.2.0")),
    "rollback": _on_registry(lambda registry: registry.rollback(NAME, by=by())),
    "revoke": _on_registry(lambda registry: registry.revoke(f"{NAME}@1.1.0", by=by())),
    "gc": _on_registry(lambda registry: gc(registry, LONG_AFTER, apply=True)),
}
"""By name. `init` begins with nothing, the others with a copy of what `prepare` made."""

BROKEN: dict[str, Operation] = {"publish, entry first": _on_registry(_publish_entry_first)}
"""What must be caught: it ends well, unless it is cut short."""


def perform(operation: str, layout: Layout, done: Done = lambda: None) -> None:
    """Do one of the `OPERATIONS`, or of those that are `BROKEN` on purpose."""
    (OPERATIONS.get(operation) or BROKEN[operation])(layout, done)
