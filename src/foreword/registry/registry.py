"""The registry: versions that can be proved, found, released and taken back.

What each change does is in `decide.py`, how it gets into the journal in `ledger.py`; here they meet the
blobs and the trust they rely on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from foreword.artifact import Digest, Manifest
from foreword.artifact.canonical import MAX_BYTES as MAX_MANIFEST
from foreword.errors import UsageError
from foreword.registry import decide
from foreword.registry.blobs import BlobStore
from foreword.registry.claims import claims_of, require_claim, without_requirements
from foreword.registry.database import Database
from foreword.registry.entries import By, Entry, Event, Released, Shifted
from foreword.registry.facts import Base, facts_of
from foreword.registry.journal import Journal
from foreword.registry.layout import Layout
from foreword.registry.ledger import Ledger, Prepare
from foreword.registry.references import ByDigest, ByName, Reference, parse_reference
from foreword.registry.releases import Release
from foreword.registry.state import NameState, State, Version, require_live
from foreword.signing.envelope import MAX_BYTES as MAX_ENVELOPE
from foreword.signing.policy import TrustPolicy
from foreword.signing.verify import VerifiedArtifact, verify

MAX_PAGE = 1_000
MAX_WINDOW = 1 << 26
"""Bytes of a reference window or a snapshot."""


@dataclass(frozen=True)
class Resolved:
    """What a reference means now."""

    version: Version
    """For a name alone, the stable version."""
    release: Release | None
    """For a name alone, its release: `release.pick(key)` says what a key gets."""

    @property
    def digest(self) -> Digest:
        return self.version.digest


@dataclass(frozen=True)
class Page:
    """Some names in order."""

    names: tuple[NameState, ...]
    after: str | None
    """Give this as `after` for the next page; None if this is the last."""


class Registry:
    """Journal, blobs, and the state that follows from the journal. Safe to share between threads."""

    def __init__(self, database: Database, blobs: BlobStore, approvals: int = 0) -> None:
        """`approvals` is how many actors other than the publisher have to approve before a release."""
        self.database = database
        self.journal = Journal(database)
        self.blobs = blobs
        self.approvals = approvals
        self._ledger = Ledger(self.journal)

    @classmethod
    def open(cls, directory: str | Path | None = None) -> Self:
        """The registry in a directory, by default `FOREWORD_REGISTRY` or `FOREWORD_HOME/registry`.

        Raises:
            NotFound: there is none.
            RegistryError: its schema is older or newer (`registry.schema_old`, `registry.schema_new`).
            ConfigError, StorageError: it cannot be used, or refused.
        """
        layout = Layout.load(directory)
        database = layout.open_database()
        try:
            database.check()
            return cls(database, layout.open_blobs(), layout.approvals)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Looking

    @property
    def state(self) -> State:
        """What was known when it was last looked; needs no database."""
        return self._ledger.state

    def refresh(self) -> State:
        """What holds now.

        Raises:
            RegistryError: the journal was tampered with.
            StorageError: the database could not be read; `state` is what was known before.
        """
        return self._ledger.refresh()

    def resolve(self, reference: Reference | str) -> Resolved:
        """The live version a reference means now.

        Raises:
            NotFound: it means nothing.
            RegistryError: the version was revoked or retired.
        """
        reference, state = _parsed(reference), self.refresh()
        version = state.live(reference)
        is_name = isinstance(reference, ByName)
        return Resolved(version, state.names[version.name].release if is_name else None)

    def list(self, prefix: str = "", after: str | None = None, limit: int = 100) -> Page:
        """Names that begin with `prefix`, such as `acme/`, a page at a time."""
        if not 1 <= limit <= MAX_PAGE:
            raise UsageError(
                f"a page has 1 to {MAX_PAGE} names, got {limit}", code="registry.limit"
            )
        found = self.refresh().page(prefix, after or "", limit + 1)
        names = found[:limit]
        return Page(names, names[-1].name if len(found) > limit else None)

    def show(self, name: str) -> NameState:
        """All that holds for one name.

        Raises:
            NotFound: nothing was ever published under it.
        """
        return self.refresh().name(name)

    def log(self, name: str | None = None, after: int = 0) -> Iterator[Entry]:
        """Entries behind number `after`, oldest first; with a name only those about it."""
        if name is not None:
            return self.journal.read_name(name, after)
        return (entry for entry in self.journal.read() if entry.seq > after)

    def fetch(self, digest: Digest, policy: TrustPolicy, now: datetime) -> VerifiedArtifact:
        """The artifact of a live version, made from the bytes that were hashed and verified.

        Raises:
            NotFound, RegistryError: no such live version here, or a blob is missing or damaged.
            TrustError: the policy does not trust it, or does not any more.
            StorageError: database or blobs could not be read.
        """
        return self._verified(require_live(self.refresh().version(digest)), policy, now)

    def manifest(self, digest: Digest) -> Manifest:
        """The manifest of a version, live or not, as it was published.

        Raises:
            NotFound, RegistryError: no such version, or its blob is missing or damaged.
        """
        known = self.refresh().version(digest)
        return Manifest.from_bytes(self.blobs.get(known.digest, MAX_MANIFEST))

    # Changing. Each gives the entry that made it so, an old one if it was so already.

    def publish(
        self,
        manifest: bytes,
        tensors: bytes,
        envelopes: Sequence[bytes],
        *,
        policy: TrustPolicy,
        by: By,
        expect: int | None = None,
    ) -> Entry:
        """Keep a signed artifact as a new version of its name.

        The same bytes again are fine; blobs that were lost since come back. Envelopes that are new are
        not taken then; `attest` adds them.

        Raises:
            TrustError, ArtifactError: the policy does not let these bytes be published.
            Conflict: the version number is taken by other bytes, or `expect` does not hold.
            RegistryError: not newer than what is there, or revoked or retired before.
            CompatibilityError: it fits no declared base.
            StorageError: nothing was published, or its answer was lost; publish again.
        """
        verified = verify(manifest, tensors, envelopes, policy, by.now, purpose="publish")
        facts = facts_of(verified.artifact.manifest, verified.digest)
        claims = claims_of(envelopes, verified)
        said = {Digest.of(data): data for data in envelopes}
        blobs = {
            facts.digest: verified.artifact.manifest_bytes,
            facts.tensors.sha256: verified.artifact.tensor_bytes,
            **{claim.envelope: said[claim.envelope] for claim in claims},
        }
        entry = self._ledger.change(
            lambda state: decide.publish(state, facts, claims),
            by,
            about=ByName(facts.name),
            expect=expect,
            prepare=self._putting(blobs),
        )
        self._put_what_is_gone(facts.digest, blobs)
        return entry

    def attest(
        self,
        reference: Reference | str,
        envelope: bytes,
        *,
        policy: TrustPolicy,
        by: By,
        expect: int | None = None,
    ) -> Entry:
        """Add an envelope to a version: a finding, whatever its verdict, or one more signature.

        Raises:
            NotFound, RegistryError: no such live version, or a blob is missing or damaged.
            TrustError: the envelope is not about these bytes, or its word does not count.
            Conflict: `expect` does not hold.
            StorageError: nothing was added, or the answer was lost; attest again.
        """
        version = self.refresh().live(_parsed(reference))
        lenient = without_requirements(policy)
        verified = self._verified(version, lenient, by.now, (envelope,))
        claim = require_claim(envelope, verified, policy, by.now)
        entry = self._ledger.change(
            lambda state: decide.attest(state, version.digest, claim),
            by,
            about=ByDigest(version.digest),
            expect=expect,
            prepare=self._putting({claim.envelope: envelope}),
        )
        self._put_what_is_gone(version.digest, {claim.envelope: envelope})
        return entry

    def approve(self, reference: Reference | str, *, by: By, expect: int | None = None) -> Entry:
        """The actor agrees that a version is released.

        Raises:
            NotFound, RegistryError: no such live version.
            Conflict: `expect` does not hold.
        """
        reference = _parsed(reference)
        return self._ledger.change(
            lambda state: decide.approve(state, reference, by.actor),
            by,
            about=reference,
            expect=expect,
        )

    def release(
        self,
        reference: Reference | str,
        share: float = 1.0,
        *,
        policy: TrustPolicy,
        by: By,
        expect: int | None = None,
    ) -> Entry:
        """Make a version stable, or with a share below 1 the canary. Its bytes are verified first.

        Raises:
            NotFound, RegistryError: no such live version, not approved, or the release does not allow
                it (`decide.release`); or a blob is missing or damaged.
            CompatibilityError: it fits no base that is declared now.
            TrustError: the policy does not trust it.
            Conflict: `expect` does not hold.
        """
        reference = _parsed(reference)
        return self._ledger.change(
            lambda state: decide.release(state, reference, share, self.approvals),
            by,
            about=reference,
            expect=expect,
            prepare=self._proving(policy, by.now),
        )

    def shift(
        self,
        name: str,
        share: float,
        *,
        policy: TrustPolicy,
        by: By,
        expect: int | None = None,
    ) -> Entry:
        """Give the running canary another share; 1 makes it stable. For more, its bytes are verified.

        Raises:
            NotFound, RegistryError: no such name, or no canary; for more, a damaged blob.
            TrustError: for more, the policy does not trust it.
            Conflict: `expect` does not hold.
        """
        return self._ledger.change(
            lambda state: decide.shift(state, name, share),
            by,
            about=ByName(name),
            expect=expect,
            prepare=self._proving(policy, by.now),
        )

    def rollback(
        self,
        name: str,
        *,
        to: Reference | str | None = None,
        by: By,
        expect: int | None = None,
    ) -> Entry:
        """Take the canary back, or else what is stable. Needs nothing but the database.

        Right after a rollback it changes nothing; name a version with `to` to go back further.

        Raises:
            NotFound, RegistryError: nothing is released, or nothing to go back to.
            Conflict: `expect` does not hold.
        """
        target = None if to is None else _parsed(to)
        return self._ledger.change(
            lambda state: decide.rollback(state, name, target),
            by,
            about=ByName(name),
            expect=expect,
        )

    def revoke(self, reference: Reference | str, *, by: By, expect: int | None = None) -> Entry:
        """Nobody may use a version any more; `by.reason` says why.

        Raises:
            NotFound: no such version.
            UsageError: no reason is given.
            Conflict: `expect` does not hold.
        """
        reference = _parsed(reference)
        return self._ledger.change(
            lambda state: decide.revoke(state, reference, by.reason),
            by,
            about=reference,
            expect=expect,
        )

    def retire(self, reference: Reference | str, *, by: By, expect: int | None = None) -> Entry:
        """A version is not needed any more; its blobs may be reclaimed.

        Raises:
            NotFound, RegistryError: no such live version, or it is in use.
            Conflict: `expect` does not hold.
        """
        reference = _parsed(reference)
        return self._ledger.change(
            lambda state: decide.retire(state, reference), by, about=reference, expect=expect
        )

    def alias(
        self, word: str, reference: Reference | str, *, by: By, expect: int | None = None
    ) -> Entry:
        """Let a word stand for a version of its name.

        Raises:
            UsageError: the word cannot be an alias.
            NotFound, RegistryError: no such live version.
            Conflict: `expect` does not hold.
        """
        reference = _parsed(reference)
        return self._ledger.change(
            lambda state: decide.alias(state, word, reference), by, about=reference, expect=expect
        )

    def unalias(self, name: str, word: str, *, by: By, expect: int | None = None) -> Entry:
        """Let a word stand for nothing.

        Raises:
            NotFound: the name never had this alias.
            Conflict: `expect` does not hold.
        """
        return self._ledger.change(
            lambda state: decide.unalias(state, name, word), by, about=ByName(name), expect=expect
        )

    def record_drift(
        self,
        reference: Reference | str,
        *,
        measure: str,
        statistic: float,
        p: float,
        window: bytes,
        snapshot: bytes,
        by: By,
        expect: int | None = None,
    ) -> Entry:
        """Record that a version drifted from its reference `window`; `snapshot` is data to re-train from.

        Raises:
            UsageError: a window is larger than 64 MB (`registry.window`).
            NotFound, RegistryError: no such live version.
            Conflict: `expect` does not hold.
            StorageError: nothing was recorded, or the answer was lost; record it again.
        """
        if max(len(window), len(snapshot)) > MAX_WINDOW:
            raise UsageError(
                f"expected windows of at most {MAX_WINDOW} bytes, got {len(window)} and {len(snapshot)}; "
                "look at fewer rows",
                code="registry.window",
            )
        version = self.refresh().live(_parsed(reference))
        blobs = {Digest.of(window): window, Digest.of(snapshot): snapshot}
        entry = self._ledger.change(
            lambda state: decide.drift(
                state, version.digest, measure, statistic, p, Digest.of(window), Digest.of(snapshot)
            ),
            by,
            about=ByDigest(version.digest),
            expect=expect,
            prepare=self._putting(blobs),
        )
        self._put_what_is_gone(version.digest, blobs)
        return entry

    def declare_base(self, base: Base, *, by: By) -> Entry:
        """A base model is run here from now on.

        Raises:
            Conflict: its id is declared with other facts.
        """
        return self._ledger.change(lambda state: decide.declare_base(state, base), by)

    def withdraw_base(self, base_id: str, *, by: By) -> Entry:
        """A base model is not run here any more.

        Raises:
            NotFound: it never was declared.
            RegistryError: versions that serve now need it.
        """
        return self._ledger.change(lambda state: decide.withdraw_base(state, base_id), by)

    # What an entry relies on.

    def _putting(self, blobs: Mapping[Digest, bytes]) -> Prepare:
        """Put the blobs before the first try to append; a lost race does not put them again."""
        left = dict(blobs)

        def put(_state: State, _event: Event) -> None:
            while left:
                digest = next(iter(left))
                self.blobs.put(left[digest])
                del left[digest]

        return put

    def _put_what_is_gone(self, digest: Digest, blobs: Mapping[Digest, bytes]) -> None:
        """Also heals a version that lost a blob, and a put that met a collection of old blobs."""
        for needed in self.refresh().version(digest).blobs:
            if needed in blobs and self.blobs.find(needed) is None:
                self.blobs.put(blobs[needed])

    def _proving(self, policy: TrustPolicy, now: datetime) -> Prepare:
        """More keys for a version need proof that it is whole and trusted; fewer never do."""

        def prove(state: State, event: Event) -> None:
            if isinstance(event, Released | Shifted):
                release = state.names[event.name].release
                if release is None or release.canary != event.digest or release.share < event.share:
                    self._verified(state.versions[event.digest], policy, now)

        return prove

    def _verified(
        self, version: Version, policy: TrustPolicy, now: datetime, more: tuple[bytes, ...] = ()
    ) -> VerifiedArtifact:
        known = version.claims
        envelopes = [self.blobs.get(each.claim.envelope, MAX_ENVELOPE) for each in known]
        return verify(
            self.blobs.get(version.digest, MAX_MANIFEST),
            self.blobs.get(version.facts.tensors.sha256, version.facts.tensors.size),
            tuple(dict.fromkeys((*envelopes, *more))),
            policy,
            now,
        )


def _parsed(reference: Reference | str) -> Reference:
    return parse_reference(reference) if isinstance(reference, str) else reference
