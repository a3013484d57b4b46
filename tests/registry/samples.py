"""Versions, bases and commands for the tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from foreword.artifact import Artifact, BaseRef, Digest, TensorFile
from foreword.registry.entries import GENESIS, By, Entry, Event, Head
from foreword.registry.facts import Base, Claim, VersionFacts, facts_of
from foreword.registry.registry import Registry
from foreword.registry.state import State, fold
from foreword.signing.policy import TrustPolicy
from tests.artifact.samples import GEOMETRY, sample
from tests.signing.made import NOW, attested, key, policy, signed

NAME = "acme/support"
BASE = Base(sample().manifest.base, GEOMETRY)
OTHER_BASE = Base(replace(BASE.ref, id="other/base", fingerprint=Digest.of(b"other")), GEOMETRY)
POLICY = policy(key("ana"))
_FACTS = facts_of(sample().manifest, sample().digest)


def by(actor: str = "ana", reason: str = "a reason", seconds: int = 0) -> By:
    return By(actor, NOW + timedelta(seconds=seconds), reason)


def publish(
    registry: Registry, version: str = "1.0.0", who: By | None = None, **changes: Any
) -> Artifact:
    """Publish a signed version of `NAME`, on a base that is declared."""
    artifact = sample(version=version, **changes)
    registry.declare_base(BASE, by=by())
    give(registry, artifact, signed(artifact, key("ana")), who=who)
    return artifact


def give(
    registry: Registry,
    artifact: Artifact,
    *envelopes: bytes,
    trust: TrustPolicy = POLICY,
    who: By | None = None,
    expect: int | None = None,
) -> Entry:
    """Publish these very bytes."""
    return registry.publish(
        artifact.manifest_bytes, artifact.tensor_bytes, envelopes,
        policy=trust, by=who or by(), expect=expect,
    )  # fmt: skip


def facts(
    version: str = "1.0.0", name: str = NAME, base: BaseRef = BASE.ref, **changes: Any
) -> VersionFacts:
    """Facts of a version nobody made; the digest follows from name, version and base."""
    digest = Digest.of(f"{name} {version} {base}".encode())
    tensors = TensorFile(Digest.of(f"tensors {name} {version}".encode()), 904)
    given = {"name": name, "version": version, "digest": digest, "base": base, "tensors": tensors}
    return replace(_FACTS, **given, **changes)


def claim(text: str = "one", kind: str = "sign") -> Claim:
    verdict = None if kind == "sign" else "pass"
    return Claim(Digest.of(text.encode()), kind, verdict, (key("ana").id,))


class Log:
    """A journal in memory: entries, and the state they lead to."""

    def __init__(self, *events: Event) -> None:
        self.entries: list[Entry] = []
        self.state = State()
        for event in events:
            self.add(event)

    @property
    def head(self) -> Head:
        return self.entries[-1].head if self.entries else GENESIS

    def add(self, event: Event, who: By | None = None) -> Entry:
        entry = Entry.after(self.head, event, who or by())
        self.state = fold(self.state, [entry])
        self.entries.append(entry)
        return entry


__all__ = [
    "BASE", "NAME", "NOW", "OTHER_BASE", "POLICY", "Log", "attested", "by", "claim", "facts", "give", "key",
    "policy", "publish", "sample", "signed",
]  # fmt: skip
