"""What a load is made of: its flight, what the threads bring, and how it ends. Values, no rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from foreword.artifact import Digest, Manifest
from foreword.artifact.manifest import tensor_bytes
from foreword.prefix.kv import PrefixKV
from foreword.serving.engine.residency.breaker import Failure
from foreword.serving.engine.residency.device import DeviceTier, Load, Source
from foreword.serving.engine.residency.tiers import DiskTier, HostTier
from foreword.signing.verify import VerifiedArtifact


@dataclass(frozen=True)
class LoadLimits:
    """Seconds."""

    load: float = 30.0
    """One read from our own disk or one build; what takes longer is given up."""
    fetch: float = 8.0
    """One fetch, all of its blobs and their verification."""
    room: float = 10.0
    """How long a load waits for pinned prefixes to go."""
    grace: float = 1.0
    """How long a new resident is kept for the requests that wait for it."""


@dataclass(frozen=True)
class Tiers:
    device: DeviceTier
    host: HostTier | None
    """None on a CPU, where the device's memory is the host's."""
    disk: DiskTier | None


@dataclass(frozen=True)
class Landing:
    """How a flight ended: resident, or with a failure."""

    digest: Digest
    asked: bool
    """A request wanted it."""
    source: Source
    failure: Failure | None = None
    name: str = ""
    """Empty if its manifest was never seen."""
    nbytes: int = 0
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds of `fetch`, `room` and `attach`; empty if it failed."""


class Stage(Enum):
    READING = "reading"
    ROOM = "room"
    BUILDING = "building"
    PROOF = "proof"


@dataclass(frozen=True)
class Found:
    """Bytes or tensors on the host that belong to the digest and fit the base."""

    manifest: Manifest
    tensors: VerifiedArtifact | PrefixKV

    @property
    def nbytes(self) -> int:
        """Of the tensors on the device, from the manifest alone."""
        manifest = self.manifest
        return tensor_bytes(manifest.geometry, manifest.length, manifest.dtype)

    def on_host(self) -> PrefixKV:
        if isinstance(self.tensors, PrefixKV):
            return self.tensors
        return PrefixKV.from_artifact(self.tensors.artifact)


@dataclass(frozen=True)
class Built:
    host: PrefixKV
    device: PrefixKV
    """The same object on a CPU."""


@dataclass(eq=False)
class Flight:
    """A prefix on its way; `found` is there from ROOM on, `built` from PROOF on."""

    digest: Digest
    asked: bool
    """By a request, not only ahead of time."""
    source: Source
    began: float
    stage: Stage = Stage.READING
    since: float = 0.0
    """When it began to wait for room."""
    judging: float = 0.0
    """Seconds of that which went into trust."""
    roomed: float = 0.0
    """When it had room."""
    reserved: int = 0
    found: Found | None = None
    built: Built | None = None

    def load(self, now: float) -> Load:
        """How it came, if it lands now."""
        fetched = max(self.began, self.since - self.judging)
        return Load(self.source, self.began, fetched, self.since, self.roomed, now)

    def phases(self, now: float) -> dict[str, float]:
        """Where the time went until now, when it lands: bytes and trust, memory, tensors and probe."""
        return {
            "fetch": self.since - self.began,
            "room": self.roomed - self.since,
            "attach": now - self.roomed,
        }
