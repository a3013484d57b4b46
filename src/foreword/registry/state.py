"""State is a fold over the journal: a pure function from entries to what holds now.

Everything that an event changes is said here, one rule for each kind, and nowhere else. The rules trust
what `decide.py` let into the journal; an entry that fits nothing is refused, never skipped.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from foreword.artifact import Digest
from foreword.errors import NotFound, RegistryError
from foreword.registry.entries import (
    GENESIS,
    Aliased,
    Approved,
    Attested,
    BaseDeclared,
    BaseWithdrawn,
    Drifted,
    Entry,
    Event,
    Head,
    Published,
    Released,
    Retired,
    Revoked,
    RolledBack,
    Shifted,
)
from foreword.registry.facts import Base, Claim, VersionFacts
from foreword.registry.references import (
    CANARY,
    STABLE,
    ByDigest,
    ByName,
    ByVersion,
    Reference,
)
from foreword.registry.releases import Release

Status = Literal["live", "revoked", "retired"]
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Mark:
    """The entry that made something so."""

    seq: int
    time: str
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class KnownClaim:
    """What an envelope says, and the entry that brought it."""

    claim: Claim
    mark: Mark


@dataclass(frozen=True)
class KnownDrift:
    """A drift that was seen, and the entry that tells it."""

    event: Drifted
    mark: Mark


@dataclass(frozen=True, slots=True)
class Version:
    """A published version and everything that was said about it since."""

    facts: VersionFacts
    published: Mark
    claims: tuple[KnownClaim, ...]
    approvals: tuple[Mark, ...] = ()
    """One for each actor."""
    status: Status = "live"
    ended: Mark | None = None
    """When and why it stopped being live."""
    drifts: tuple[KnownDrift, ...] = ()
    """Oldest first."""

    @property
    def digest(self) -> Digest:
        return self.facts.digest

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def version(self) -> str:
        return self.facts.version

    @property
    def blobs(self) -> tuple[Digest, ...]:
        """Everything that has to be in the blob store: manifest, tensors, envelopes, drift windows."""
        return (
            self.digest, self.facts.tensors.sha256, *(known.claim.envelope for known in self.claims),
            *self.windows,
        )  # fmt: skip

    @property
    def windows(self) -> tuple[Digest, ...]:
        """Reference windows and snapshots of the drifts that were seen."""
        seen = (each.event for each in self.drifts)
        return tuple(
            dict.fromkeys(digest for event in seen for digest in (event.window, event.snapshot))
        )

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Alias:
    """Where an own alias points; None after it was taken away."""

    digest: Digest | None
    set: Mark


@dataclass(frozen=True)
class NameState:
    """All that holds for one name."""

    name: str
    versions: tuple[Digest, ...] = ()
    """Oldest first: a version is always newer than all before it."""
    release: Release | None = None
    """None before the first release, and if what was stable was revoked with nothing before it."""
    history: tuple[Digest, ...] = ()
    """What was stable before, the latest last; a rollback goes back along it."""
    changed: Mark | None = None
    """The last entry that changed `release`."""
    change: Event | None = None
    """And what it said."""
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    generation: int = 0
    """`seq` of the last entry about this name: give it as `expect` to change only what you saw."""


@dataclass(frozen=True)
class DeclaredBase:
    """A base that was declared, and whether it still is."""

    base: Base
    declared: Mark
    withdrawn: Mark | None = None


@dataclass(frozen=True)
class State:
    """What holds after all entries up to `head`. A value: it never changes."""

    head: Head = GENESIS
    names: Mapping[str, NameState] = field(default_factory=dict)
    versions: Mapping[Digest, Version] = field(default_factory=dict)
    numbers: Mapping[tuple[str, str], Digest] = field(default_factory=dict)
    """By name and version."""
    declared: Mapping[str, DeclaredBase] = field(default_factory=dict)
    """By id, those that were withdrawn included."""

    @cached_property
    def bases(self) -> tuple[Base, ...]:
        """The bases that are run here now, by id."""
        here = (each for each in self.declared.values() if not each.withdrawn)
        return tuple(each.base for each in sorted(here, key=lambda each: each.base.id))

    @cached_property
    def sorted_names(self) -> tuple[str, ...]:
        return tuple(sorted(self.names))

    def generation(self, name: str | None) -> int:
        """`NameState.generation`, 0 for a name nobody published under; for None that of the journal."""
        if name is None:
            return self.head.seq
        known = self.names.get(name)
        return known.generation if known else 0

    def name(self, name: str) -> NameState:
        """
        Raises:
            NotFound: nothing was ever published under it (`registry.name_unknown`).
        """
        known = self.names.get(name)
        if known is None:
            near = get_close_matches(name, self.names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see `foreword registry list`"
            raise NotFound(
                f"there is no prefix {name[:130]!r} in the registry; {hint}",
                code="registry.name_unknown",
            )
        return known

    def version(self, digest: Digest) -> Version:
        """
        Raises:
            NotFound: no such version was ever published here (`registry.digest_unknown`).
        """
        known = self.versions.get(digest)
        if known is None:
            raise NotFound(
                f"no version {digest} was published in this registry",
                code="registry.digest_unknown",
            )
        return known

    def find(self, reference: Reference) -> Version:
        """The version a reference means now, live or not.

        Raises:
            NotFound: it means nothing; the message says what there is.
        """
        if isinstance(reference, ByDigest):
            return self.version(reference.digest)
        known = self.name(reference.name)
        if isinstance(reference, ByVersion):
            return self._by_version(known, reference.version)
        alias = STABLE if isinstance(reference, ByName) else reference.alias
        return self.version(_by_alias(known, alias))

    def live(self, reference: Reference) -> Version:
        """The version a reference means, if it may be used.

        Raises:
            NotFound: as `find`.
            RegistryError: it was revoked or retired (`registry.revoked`, `registry.retired`).
        """
        return require_live(self.find(reference))

    def page(self, prefix: str, after: str, limit: int) -> tuple[NameState, ...]:
        """Names that begin with `prefix` and come behind `after`, in order, at most `limit`."""
        names = self.sorted_names
        start = max(bisect_left(names, prefix), bisect_right(names, after))
        found = (name for name in names[start : start + limit] if name.startswith(prefix))
        return tuple(self.names[name] for name in found)

    def _by_version(self, known: NameState, version: str) -> Version:
        digest = self.numbers.get((known.name, version))
        if digest is not None:
            return self.versions[digest]
        newest = self.versions[known.versions[-1]].version
        raise NotFound(
            f"there is no {known.name} {version[:80]}; the newest of {len(known.versions)} versions is "
            f"{newest}",
            code="registry.version_unknown",
        )


def require_live(version: Version) -> Version:
    """
    Raises:
        RegistryError: it was revoked or retired (`registry.revoked`, `registry.retired`).
    """
    if version.status != "live":
        ended = version.ended
        why = f" ({ended.reason})" if ended and ended.reason else ""
        raise RegistryError(
            f"{version} ({version.digest.short}) was {version.status}{why} and is not used any more; "
            "take another version",
            code=f"registry.{version.status}",
        )
    return version


def fold(state: State, entries: Iterable[Entry]) -> State:
    """State after more entries.

    Raises:
        RegistryError: an entry tells of something that is not there (`registry.entry`).
    """
    draft = _Draft(state)
    for entry in entries:
        try:
            _RULES[type(entry.event)](draft, entry, entry.event)
        except KeyError as e:
            raise RegistryError(
                f"entry {entry.seq} ({entry.kind}) speaks of {str(e)[:80]}, which is not there; the "
                "journal was not written by Foreword, restore it from a backup",
                code="registry.entry",
            ) from e
        draft.head = entry.head
    return draft.done()


class _Draft:
    """A state while it is being made: copied once, however many entries follow."""

    def __init__(self, state: State) -> None:
        self.head = state.head
        self.names = _copy(state.names)
        self.versions = _copy(state.versions)
        self.numbers = _copy(state.numbers)
        self.declared = _copy(state.declared)

    def done(self) -> State:
        return State(
            self.head,
            MappingProxyType(self.names),
            MappingProxyType(self.versions),
            MappingProxyType(self.numbers),
            MappingProxyType(self.declared),
        )

    def change(self, entry: Entry, name: str, **changes: Any) -> None:
        self.names[name] = replace(self.names[name], generation=entry.seq, **changes)

    def release(self, entry: Entry, known: NameState, **changes: Any) -> None:
        self.change(entry, known.name, changed=_mark(entry), change=entry.event, **changes)

    def end(self, entry: Entry, digest: Digest, status: Status) -> None:
        self.versions[digest] = replace(self.versions[digest], status=status, ended=_mark(entry))


def _copy(view: Mapping[_Key, _Value]) -> dict[_Key, _Value]:
    # dict(view) would hash every key again, 8 ms for 10,000 digests; copy() takes 0.1 ms.
    return view.copy() if isinstance(view, MappingProxyType) else dict(view)


def _mark(entry: Entry) -> Mark:
    return Mark(entry.seq, entry.time, entry.actor, entry.reason)


def _base_declared(draft: _Draft, entry: Entry, event: BaseDeclared) -> None:
    draft.declared[event.base.id] = DeclaredBase(event.base, _mark(entry))


def _base_withdrawn(draft: _Draft, entry: Entry, event: BaseWithdrawn) -> None:
    draft.declared[event.id] = replace(draft.declared[event.id], withdrawn=_mark(entry))


def _published(draft: _Draft, entry: Entry, event: Published) -> None:
    known = draft.names.get(event.name) or NameState(event.name)
    mark = _mark(entry)
    claims = tuple(KnownClaim(claim, mark) for claim in event.claims)
    draft.versions[event.digest] = Version(event.facts, mark, claims)
    draft.numbers[event.name, event.facts.version] = event.digest
    draft.names[event.name] = known
    draft.change(entry, event.name, versions=(*known.versions, event.digest))


def _attested(draft: _Draft, entry: Entry, event: Attested) -> None:
    version = draft.versions[event.digest]
    claims = (*version.claims, KnownClaim(event.claim, _mark(entry)))
    draft.versions[event.digest] = replace(version, claims=claims)
    draft.change(entry, event.name)


def _approved(draft: _Draft, entry: Entry, event: Approved) -> None:
    version = draft.versions[event.digest]
    draft.versions[event.digest] = replace(version, approvals=(*version.approvals, _mark(entry)))
    draft.change(entry, event.name)


def _shared(draft: _Draft, entry: Entry, event: Released | Shifted) -> None:
    known = draft.names[event.name]
    if event.share < 1 and known.release:
        release = replace(known.release, canary=event.digest, share=event.share)
        draft.release(entry, known, release=release)
        return
    before = known.release.stable if known.release else None
    history = known.history if before in (None, event.digest) else (*known.history, before)
    draft.release(entry, known, release=Release(event.name, event.digest), history=history)


def _rolled_back(draft: _Draft, entry: Entry, event: RolledBack) -> None:
    known = draft.names[event.name]
    ends_canary = known.release is not None and known.release.stable == event.stable
    history = known.history if ends_canary else _until(known.history, event.stable)
    draft.release(entry, known, release=Release(event.name, event.stable), history=history)


def _revoked(draft: _Draft, entry: Entry, event: Revoked) -> None:
    draft.end(entry, event.digest, "revoked")
    known = draft.names[event.name]
    release = known.release
    if release and release.stable == event.digest:
        fallback = Release(event.name, event.fallback) if event.fallback else None
        history = _until(known.history, event.fallback) if event.fallback else ()
        draft.release(entry, known, release=fallback, history=history)
    elif release and release.canary == event.digest:
        draft.release(entry, known, release=Release(event.name, release.stable))
    else:
        draft.change(entry, event.name)


def _retired(draft: _Draft, entry: Entry, event: Retired) -> None:
    draft.end(entry, event.digest, "retired")
    draft.change(entry, event.name)


def _aliased(draft: _Draft, entry: Entry, event: Aliased) -> None:
    known = draft.names[event.name]
    alias = Alias(event.digest, _mark(entry))
    draft.change(entry, event.name, aliases={**known.aliases, event.alias: alias})


def _drifted(draft: _Draft, entry: Entry, event: Drifted) -> None:
    version = draft.versions[event.digest]
    drifts = (*version.drifts, KnownDrift(event, _mark(entry)))
    draft.versions[event.digest] = replace(version, drifts=drifts)
    draft.change(entry, event.name)


_RULES: Mapping[type[Event], Callable[[_Draft, Entry, Any], None]] = {
    BaseDeclared: _base_declared,
    BaseWithdrawn: _base_withdrawn,
    Published: _published,
    Attested: _attested,
    Approved: _approved,
    Released: _shared,
    Shifted: _shared,
    RolledBack: _rolled_back,
    Revoked: _revoked,
    Retired: _retired,
    Aliased: _aliased,
    Drifted: _drifted,
}


def _until(history: tuple[Digest, ...], digest: Digest) -> tuple[Digest, ...]:
    """What came before the last time `digest` was stable; all of it if it never was before."""
    for index in range(len(history) - 1, -1, -1):
        if history[index] == digest:
            return history[:index]
    return history


def _by_alias(known: NameState, alias: str) -> Digest:
    release = known.release
    if alias == STABLE and release:
        return release.stable
    if alias == CANARY and release and release.canary:
        return release.canary
    if alias == STABLE:
        raise NotFound(
            f"nothing is released under {known.name}; use `foreword registry release` with one of its "
            f"{len(known.versions)} versions",
            code="registry.not_released",
        )
    if alias == CANARY:
        raise NotFound(f"{known.name} has no canary now", code="registry.no_canary")
    own = known.aliases.get(alias)
    if own is None or own.digest is None:
        there = sorted(name for name, each in known.aliases.items() if each.digest)
        raise NotFound(
            f"{known.name} has no alias {alias!r}; it has {', '.join([STABLE, *there])}",
            code="registry.alias_unknown",
        )
    return own.digest
