"""The release table: what every name means now, as one value that a request reads without waiting.

It follows from the journal's state. A change of one name copies two dictionaries and looks at that name
alone, so ten thousand names cost a follower a moment and a request nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from foreword.artifact import Digest, PromptFormat
from foreword.registry.entries import GENESIS, Head
from foreword.registry.references import (
    CANARY,
    STABLE,
    ByAlias,
    ByDigest,
    ByName,
    ByVersion,
    Reference,
)
from foreword.registry.releases import Pick, Release
from foreword.registry.state import NameState, State, Status
from foreword.serving.gateway.routing.route import Arm

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Known:
    """A version that was published, live or not."""

    name: str
    version: str
    digest: Digest
    length: int
    """Virtual tokens."""
    base: Digest
    """Fingerprint of the base it was made for."""
    status: Status

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Named:
    """What one name means."""

    name: str
    release: Release | None
    """What is served now: while a new release is warmed, still the one before."""
    aliases: Mapping[str, Digest]
    """Own ones; `stable` and `canary` follow the release."""
    versions: Mapping[str, Digest]


@dataclass(frozen=True, slots=True)
class Choice:
    """The version a reference means for one key."""

    known: Known
    arm: Arm


@dataclass(frozen=True)
class ReleaseTable:
    """All names and versions up to one entry of the journal."""

    head: Head = GENESIS
    names: Mapping[str, Named] = field(default_factory=dict)
    versions: Mapping[Digest, Known] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)
    """Names by the hexadecimal digits of their versions' digests. Keys are text because finding one
    then calls no code that missing one does not."""
    prompts: Mapping[Digest, PromptFormat] = field(default_factory=dict)
    """As far as their manifests were read; the journal does not hold them."""
    order: tuple[str, ...] = ()
    """The names, sorted."""

    @property
    def seq(self) -> int:
        """The journal entry up to which it tells."""
        return self.head.seq

    def find(self, reference: Reference, sticky: str) -> Choice | None:
        """The version a reference means for a sticky key, live or not; None if it means nothing."""
        if isinstance(reference, ByDigest):
            return self._choice(reference.digest, "pinned")
        named = self.names.get(reference.name)
        if named is None:
            return None
        match reference:
            case ByVersion():
                return self._choice(named.versions.get(reference.version), "pinned")
            case ByAlias(alias=alias) if alias not in (STABLE, CANARY):
                return self._choice(named.aliases.get(alias), "pinned")
            case ByAlias() | ByName():
                pick = _pick(named.release, reference, sticky)
                return self._choice(pick.digest, pick.arm) if pick else None

    def serves(self, digest: Digest) -> bool:
        """Whether it is known and live."""
        known = self.versions.get(digest)
        return known is not None and known.status == "live"

    def _choice(self, digest: Digest | None, arm: Arm) -> Choice | None:
        known = None if digest is None else self.versions.get(digest)
        return Choice(known, arm) if known else None


def changed(before: State, after: State) -> list[str]:
    """Names about which something new was said; a state keeps what did not change as it is."""
    known = before.names.get
    return [name for name, each in after.names.items() if known(name) is not each]


def advance(
    table: ReleaseTable, state: State, names: Iterable[str], held: Mapping[str, Release | None]
) -> ReleaseTable:
    """The table with these names as the state tells, except that the held ones still serve what they did."""
    rows, versions, owners = _copy(table.names), _copy(table.versions), _copy(table.owners)
    new = False
    for name in names:
        known = state.names[name]
        new = new or name not in rows
        rows[name] = _named(known, state, held.get(name, known.release))
        versions.update((digest, _known(state, digest)) for digest in known.versions)
        owners.update((digest.hex, name) for digest in known.versions)
    return replace(
        table,
        head=state.head,
        names=MappingProxyType(rows),
        versions=MappingProxyType(versions),
        owners=MappingProxyType(owners),
        order=tuple(sorted(rows)) if new else table.order,
    )


def with_prompts(table: ReleaseTable, prompts: Mapping[Digest, PromptFormat]) -> ReleaseTable:
    """The table, knowing more prompts."""
    more = _copy(table.prompts)
    more.update(prompts)
    return replace(table, prompts=MappingProxyType(more))


def _pick(release: Release | None, reference: ByName | ByAlias, sticky: str) -> Pick | None:
    if release is None:
        return None
    if isinstance(reference, ByName):
        return release.pick(sticky)
    if reference.alias == STABLE:
        return Pick(release.stable, "stable")
    return None if release.canary is None else Pick(release.canary, "canary")


def _named(known: NameState, state: State, release: Release | None) -> Named:
    aliases = {word: alias.digest for word, alias in known.aliases.items() if alias.digest}
    versions = {state.versions[digest].version: digest for digest in known.versions}
    return Named(known.name, release, aliases, versions)


def _known(state: State, digest: Digest) -> Known:
    version = state.versions[digest]
    facts = version.facts
    return Known(
        facts.name,
        facts.version,
        digest,
        facts.length,
        facts.base.fingerprint,
        version.status,
    )


def _copy(view: Mapping[_Key, _Value]) -> dict[_Key, _Value]:
    # copy() keeps the hashes of the keys; dict(view) would make those of every digest again.
    return view.copy() if isinstance(view, MappingProxyType) else dict(view)
