"""Where the store of the toy fetches from: a registry that publishes, takes back and misbehaves on order."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from foreword.artifact import Artifact, Digest
from foreword.errors import NotFound, StorageError
from foreword.prefix.base_model import BaseModel
from foreword.signing.store import open_verified
from foreword.signing.verify import VerifiedArtifact, verify
from tests.reliability.marked import COVERS, FIRST, MARKERS, marked_artifact
from tests.serving.prefix_samples import POLICY, SIGNER
from tests.signing.made import NOW, key, signed

STRANGER = key("stranger")
LONGEST = 8


@dataclass(frozen=True)
class Version:
    """A published prefix and the marker that it forces."""

    name: str
    marker: int
    artifact: Artifact
    envelope: bytes

    @property
    def digest(self) -> Digest:
        return self.artifact.digest


class Catalogue:
    """Names and the version that is current under each; nothing that was published is lost."""

    def __init__(self, base: BaseModel, names: int, rng: random.Random) -> None:
        self._base, self._rng = base, rng
        free = list(range(FIRST, MARKERS))
        rng.shuffle(free)
        self._free, self._count = deque(free), 0
        self.versions: dict[Digest, Version] = {}
        self.current: list[Version] = []
        for number in range(names):
            self.current.append(self._publish(f"acme/p{number}"))

    def republish(self, number: int) -> Version:
        """Other numbers under the same name, with a marker that no current prefix has."""
        old = self.current[number]
        self.current[number] = self._publish(old.name)
        self._free.append(old.marker)
        return old

    def _publish(self, name: str) -> Version:
        self._count += 1
        marker, rng = self._free.popleft(), self._rng
        made = marked_artifact(
            self._base, name, f"1.0.{self._count}", marker, rng.randint(1, LONGEST),
            rng.choice(COVERS),
        )  # fmt: skip
        version = Version(name, marker, made, signed(made, SIGNER))
        self.versions[made.digest] = version
        return version


@dataclass
class Source:
    """`fetch` over a catalogue. A fault that was ordered for a digest spoils its next fetch, once."""

    catalogue: Catalogue
    faults: dict[Digest, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    refused: dict[Digest, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Codes that a request for this digest may be refused with, from what really happened."""
    revoked: dict[Digest, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, digest: Digest) -> VerifiedArtifact:
        version = self.catalogue.versions.get(digest)
        if version is None:
            self.note(digest, "prefix.fetch_failed")
            raise NotFound(f"nothing is known of {digest.short}")
        with self.lock:
            fault = self.faults[digest].popleft() if self.faults[digest] else None
        if fault is not None:
            code, spoil = FAULTS[fault]
            if code is not None:
                self.note(digest, code)
            return spoil(self, version)
        return self.judge(version)

    def judge(self, version: Version, *, tensors: bytes | None = None,
              envelopes: tuple[bytes, ...] | None = None) -> VerifiedArtifact:  # fmt: skip
        if version.digest in self.revoked:
            self.note(version.digest, "prefix.not_verified")
        made = version.artifact
        policy = replace(POLICY, revoked=self.revoked)
        return verify(
            made.manifest_bytes,
            made.tensor_bytes if tensors is None else tensors,
            (version.envelope,) if envelopes is None else envelopes,
            policy, NOW,
        )  # fmt: skip

    def reverify(self, path: Path) -> VerifiedArtifact:
        """What the disk tier asks before it uses a copy."""
        return open_verified(path, replace(POLICY, revoked=self.revoked), NOW)

    def order(self, digest: Digest, fault: str) -> None:
        with self.lock:
            self.faults[digest].append(fault)

    def revoke(self, digest: Digest) -> None:
        self.revoked = {
            **self.revoked,
            digest: "it was wrong",
        }  # readers see the old or the new one

    def note(self, digest: Digest, code: str) -> None:
        with self.lock:
            self.refused[digest].add(code)


def _down(source: Source, version: Version) -> VerifiedArtifact:
    raise StorageError("the store is down")


def _broken(source: Source, version: Version) -> VerifiedArtifact:
    raise KeyError("a fault in somebody's client")


def _timeout(source: Source, version: Version) -> VerifiedArtifact:
    raise TimeoutError("the store did not answer")


def _slow(source: Source, version: Version) -> VerifiedArtifact:
    time.sleep(0.005)
    return source.judge(version)


def _other(source: Source, version: Version) -> VerifiedArtifact:
    others = [each for each in source.catalogue.current if each.digest not in source.revoked]
    place = version.marker % len(others)
    other = others[place] if others[place] is not version else others[place - 1]
    return source.judge(other)


def _truncated(source: Source, version: Version) -> VerifiedArtifact:
    return source.judge(version, tensors=version.artifact.tensor_bytes[:-4])


def _flipped(source: Source, version: Version) -> VerifiedArtifact:
    data = bytearray(version.artifact.tensor_bytes)
    data[-1 - version.marker % 64] ^= 1 << version.marker % 8
    return source.judge(version, tensors=bytes(data))


def _unsigned(source: Source, version: Version) -> VerifiedArtifact:
    return source.judge(version, envelopes=())


def _stranger(source: Source, version: Version) -> VerifiedArtifact:
    return source.judge(version, envelopes=(signed(version.artifact, STRANGER),))


def _not_judged(source: Source, version: Version) -> VerifiedArtifact:
    return version.artifact  # type: ignore[return-value]  # the right bytes, which nobody vouched for


FAULTS: dict[str, tuple[str | None, Callable[[Source, Version], VerifiedArtifact]]] = {
    "down": ("prefix.fetch_failed", _down),
    "broken": ("prefix.fetch_failed", _broken),
    "timeout": ("prefix.fetch_timeout", _timeout),
    "slow": (None, _slow),
    "other": ("prefix.damaged", _other),
    "truncated": ("prefix.not_verified", _truncated),
    "flipped": ("prefix.not_verified", _flipped),
    "unsigned": ("prefix.not_verified", _unsigned),
    "stranger": ("prefix.not_verified", _stranger),
    "not judged": ("prefix.fetch_failed", _not_judged),
}
"""What the store makes of each, and the fault itself."""
