"""gc: take back the room of blobs that no version needs, and never one that a publish relies on.

A blob goes in two steps that are at least a grace apart. First it is condemned: copied to the store
`condemned` beside the blobs, then deleted. A later run destroys the copy, if the blob is still not needed.

Nothing here locks anything. A publish and a collection may meet in any order, because each does its
deed first and then looks for the other's:

    publish      1. put the blobs        2. append the entry      3. look for the blobs, put what is gone
    collection   1. look at the journal  2. condemn the blob      3. look at the journal, bring back

Say a publish found blob B there and did not write it. If its entry came before the collection's first
look, B is kept. If not, and B is condemned nevertheless, one of the two came last: if the blob was
deleted before the publish's last look, the publish puts it back; else that look, and with it the entry,
came before the deletion, so the collection's last look sees the entry and brings B back. No clock is
part of this argument, so it does not matter how long either of them is stopped on the way.

Either can be killed before its last look. Then B is missing and condemned, its bytes are safe, and the
next run brings it back (`fsck` says so). Only the copy's end depends on time: it is destroyed when it
is older than the grace, so bytes are lost only by a publish that took longer than that from 1 to 2 and
was killed right after. To make even the moment in between rare, a blob is condemned only if nobody put it
within the grace, and putting makes it young.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from foreword.artifact import Digest
from foreword.errors import NotFound, RegistryError, UsageError
from foreword.registry.blobs import BlobStore, StoredBlob
from foreword.registry.registry import Registry
from foreword.registry.state import State, Version

GRACE = timedelta(days=1)
LEAST_GRACE = timedelta(hours=1)
"""Shorter than this, clocks that differ and slow uploads begin to matter."""
_CONDEMNED = "condemned"


@dataclass(frozen=True)
class Collection:
    """What a run did, or in a dry run would do."""

    applied: bool
    condemned: tuple[StoredBlob, ...]
    """No version needs them."""
    destroyed: tuple[StoredBlob, ...]
    """Condemned before the grace, and still not needed."""
    brought_back: tuple[Digest, ...]
    """Condemned, but needed: the other side of a race was killed, or another journal was in use."""
    drafts: int
    """Writes that were cut short; not counted in a dry run."""

    @property
    def freed(self) -> int:
        """Bytes that are gone for good."""
        return sum(blob.size for blob in self.destroyed)

    def to_json(self) -> dict[str, Any]:
        return {
            "applied": self.applied,
            "condemned": [_to_json(blob) for blob in self.condemned],
            "destroyed": [_to_json(blob) for blob in self.destroyed],
            "brought_back": [str(digest) for digest in self.brought_back],
            "drafts": self.drafts,
            "freed": self.freed,
        }


def needed(state: State) -> Mapping[Digest, Version]:
    """Every blob that has to be there, and a version that needs it."""
    return {digest: version for version in state.versions.values() for digest in needed_by(version)}


def needed_by(version: Version) -> tuple[Digest, ...]:
    """A live version needs all its blobs, a retired one none.

    A revoked version is never used again, so its tensors go; its manifest and envelopes stay as evidence
    of what was revoked and who had vouched for it, and so do the windows of its drifts.
    """
    if version.status == "retired":
        return ()
    if version.status == "revoked":
        return tuple(digest for digest in version.blobs if digest != version.facts.tensors.sha256)
    return version.blobs


def condemned(blobs: BlobStore) -> BlobStore:
    """Where blobs wait for their end: a store of its own beside the blobs."""
    return blobs.beside(_CONDEMNED)


def gc(
    registry: Registry, now: datetime, *, grace: timedelta = GRACE, apply: bool = False
) -> Collection:
    """Collect what no version needs and nobody put within the grace. Without `apply`, only look.

    The blobs have to be this registry's alone: what only another journal knows is not needed here.

    Raises:
        UsageError: the grace is shorter than an hour (`gc.grace`).
        RegistryError: the journal is damaged; nothing was touched.
        StorageError: database or blobs refused; every blob that is needed is there or condemned, run
            it again.
    """
    if grace < LEAST_GRACE:
        raise UsageError(
            f"expected a grace of an hour or more, got {grace}; publishes that are under way need it",
            code="gc.grace",
        )
    run = _Run(registry, now - grace)
    back = run.to_bring_back()
    if not apply:
        return Collection(False, run.to_condemn(), run.to_destroy(), back, drafts=0)
    condemned(registry.blobs).create()
    run.bring_back(back)
    destroyed = tuple(copy for copy in run.to_destroy() if run.destroy(copy))
    gone = tuple(blob for blob in run.to_condemn() if run.condemn(blob))
    again = run.to_bring_back()
    run.bring_back(again)
    return Collection(
        True,
        tuple(blob for blob in gone if blob.digest not in again),
        destroyed,
        (*back, *again),
        run.sweep(),
    )


class _Run:
    """One collection. Lists may be old when they are worked on, so each blob is looked at again."""

    def __init__(self, registry: Registry, before: datetime) -> None:
        self._registry = registry
        self._blobs = registry.blobs
        self._grave = condemned(registry.blobs)
        self._before = before
        self._seen, self._wanted = State(), needed(State())

    def to_bring_back(self) -> tuple[Digest, ...]:
        copies = [copy.digest for copy in self._grave.stored()]
        wanted = self._needed()
        return tuple(d for d in copies if d in wanted and self._blobs.find(d) is None)

    def to_destroy(self) -> tuple[StoredBlob, ...]:
        copies = list(self._grave.stored())
        wanted = self._needed()
        return tuple(copy for copy in copies if self._may_end(copy, wanted))

    def to_condemn(self) -> tuple[StoredBlob, ...]:
        blobs = [blob for blob in self._blobs.stored() if blob.modified < self._before]
        wanted = self._needed()
        return tuple(blob for blob in blobs if blob.digest not in wanted)

    def bring_back(self, digests: tuple[Digest, ...]) -> None:
        """The copies stay until they are old: another run may be about to delete the blobs again."""
        for digest in digests:
            copy = self._grave.find(digest)
            if copy is not None:
                self._blobs.put(self._grave.get(digest, copy.size))

    def destroy(self, copy: StoredBlob) -> bool:
        found = self._grave.find(copy.digest)
        if found is None or not self._may_end(found, self._needed()):
            return False
        return self._grave.delete(copy.digest)

    def condemn(self, blob: StoredBlob) -> bool:
        try:
            self._grave.put(self._blobs.get(blob.digest, blob.size))
        except NotFound:
            return False
        except RegistryError:
            pass  # damaged: its bytes are nobody's, and it would only be in the way of the next put
        found = self._blobs.find(blob.digest)
        if found is None or found.modified >= self._before or blob.digest in self._needed():
            return False
        return self._blobs.delete(blob.digest)

    def sweep(self) -> int:
        return self._blobs.sweep(self._before) + self._grave.sweep(self._before)

    def _may_end(self, copy: StoredBlob, wanted: Mapping[Digest, Version]) -> bool:
        """Old, and not the only one left of a blob that is needed."""
        if copy.modified >= self._before:
            return False
        return copy.digest not in wanted or self._blobs.find(copy.digest) is not None

    def _needed(self) -> Mapping[Digest, Version]:
        """By the journal as it is now; if nothing is new in it, that is one small query."""
        state = self._registry.refresh()
        if state is not self._seen:
            self._seen, self._wanted = state, needed(state)
        return self._wanted


def _to_json(blob: StoredBlob) -> dict[str, Any]:
    return {"digest": str(blob.digest), "size": blob.size}
