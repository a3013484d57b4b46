"""Lineage: what a tenant got, from when to when, by whose decision, on which evidence, made from what.

`turns` is the history of one name's release, `why` the reasons for what it gives now. Both follow from
the journal alone; no blob is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from foreword.artifact import Digest
from foreword.errors import RegistryError
from foreword.registry.entries import Entry
from foreword.registry.facts import Lineage
from foreword.registry.registry import Registry
from foreword.registry.releases import Arm, Release
from foreword.registry.state import KnownClaim, KnownDrift, Mark, State, Version, fold

_MOST_PARENTS = 100


@dataclass(frozen=True)
class Turn:
    """An entry that changed what a name gives."""

    mark: Mark
    kind: str
    """Of the entry: released, shifted, rolled_back or revoked."""
    before: Release | None
    after: Release | None

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            **_mark_json(self.mark),
            "before": _release_json(self.before),
            "after": _release_json(self.after),
        }


@dataclass(frozen=True)
class Ancestor:
    """A version that another was trained from."""

    digest: Digest
    version: Version | None
    """None if it was never published here."""

    def to_json(self) -> dict[str, Any]:
        known = self.version
        return {
            "digest": str(self.digest),
            "name": known.name if known else None,
            "version": known.version if known else None,
            "status": known.status if known else None,
        }


@dataclass(frozen=True)
class Reason:
    """Why one arm of a release gives the version it gives."""

    arm: Arm
    share: float
    """Part of the keys."""
    version: Version
    since: Turn
    """The entry that made it this arm."""
    ancestors: tuple[Ancestor, ...]
    """What it was trained from, the nearest first."""

    @property
    def evidence(self) -> tuple[KnownClaim, ...]:
        """Signatures and findings, and who brought them."""
        return self.version.claims

    @property
    def drifts(self) -> tuple[KnownDrift, ...]:
        """What speaks for a new version: drifts that were seen since."""
        return self.version.drifts

    @property
    def made_from(self) -> Lineage:
        return self.version.facts.lineage

    def to_json(self) -> dict[str, Any]:
        facts = self.version.facts
        return {
            "arm": self.arm,
            "share": self.share,
            "version": facts.version,
            "digest": str(facts.digest),
            "since": self.since.to_json(),
            "published": _mark_json(self.version.published),
            "evidence": [_evidence_json(known) for known in self.evidence],
            "approvals": [_mark_json(mark) for mark in self.version.approvals],
            "drifts": [
                {**known.event.to_json(), "added": _mark_json(known.mark)} for known in self.drifts
            ],
            "base": {"id": facts.base.id, "fingerprint": str(facts.base.fingerprint)},
            "data": str(self.made_from.data) if self.made_from.data else None,
            "code": self.made_from.code,
            "created": facts.created,
            "ancestors": [ancestor.to_json() for ancestor in self.ancestors],
        }


@dataclass(frozen=True)
class Why:
    """Why a name gives what it gives now."""

    name: str
    reasons: tuple[Reason, ...]
    """For the stable version and then the canary; none if nothing is released."""
    last: Turn | None
    """The last entry that changed the release."""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "reasons": [reason.to_json() for reason in self.reasons],
            "last": self.last.to_json() if self.last else None,
        }


def turns(entries: Iterable[Entry], name: str) -> tuple[Turn, ...]:
    """Everything that changed what a name gives, oldest first; `entries` are those about the name."""
    return tuple(_turns(entries, name))


def why(registry: Registry, name: str) -> Why:
    """Why a name gives what it gives now.

    Raises:
        NotFound: nothing was ever published under it.
        StorageError: the database could not be read.
    """
    state = registry.refresh()
    known = state.name(name)
    history = turns((e for e in registry.log(name) if e.seq <= state.head.seq), name)
    reasons = []
    if known.release:
        stable, canary, share = known.release.stable, known.release.canary, known.release.share
        reasons.append(_reason(state, history, "stable", stable, 1 - share if canary else 1.0))
        if canary:
            reasons.append(_reason(state, history, "canary", canary, share))
    return Why(name, tuple(reasons), history[-1] if history else None)


def ancestors(state: State, version: Version) -> Iterator[Ancestor]:
    """What a version was trained from, and that from, as far as it was published here."""
    seen = {version.digest}
    parent = version.facts.lineage.parent
    while parent and parent not in seen and len(seen) <= _MOST_PARENTS:
        seen.add(parent)
        known = state.versions.get(parent)
        yield Ancestor(parent, known)
        parent = known.facts.lineage.parent if known else None


def _turns(entries: Iterable[Entry], name: str) -> Iterator[Turn]:
    state, before = State(), None
    for entry in entries:
        state = fold(state, [entry])
        after = state.names[name].release
        if after != before:
            mark = Mark(entry.seq, entry.time, entry.actor, entry.reason)
            yield Turn(mark, entry.kind, before, after)
        before = after


def _reason(
    state: State, history: tuple[Turn, ...], arm: Arm, digest: Digest, share: float
) -> Reason:
    version = state.versions[digest]
    return Reason(
        arm, share, version, _since(history, arm, digest), tuple(ancestors(state, version))
    )


def _since(history: tuple[Turn, ...], arm: Arm, digest: Digest) -> Turn:
    """The last turn that made a version this arm; later ones changed the other arm or the share."""
    for turn in reversed(history):
        if _at(turn.after, arm) == digest != _at(turn.before, arm):
            return turn
    raise RegistryError(
        f"no entry made {digest} {arm}, although it is: entries are not found under the name they are "
        "about; `foreword registry fsck` says more",
        code="registry.chain",
    )


def _at(release: Release | None, arm: Arm) -> Digest | None:
    if release is None:
        return None
    return release.stable if arm == "stable" else release.canary


def _mark_json(mark: Mark) -> dict[str, Any]:
    return {"seq": mark.seq, "time": mark.time, "actor": mark.actor, "reason": mark.reason}


def _release_json(release: Release | None) -> dict[str, Any] | None:
    if release is None:
        return None
    return {
        "stable": str(release.stable),
        "canary": str(release.canary) if release.canary else None,
        "share": release.share,
    }


def _evidence_json(known: KnownClaim) -> dict[str, Any]:
    claim = known.claim
    return {
        "kind": claim.kind,
        "verdict": claim.verdict,
        "signers": list(claim.signers),
        "envelope": str(claim.envelope),
        "added": _mark_json(known.mark),
    }
