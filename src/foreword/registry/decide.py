"""What a command does: a pure function of the state, giving an event to record or a refusal.

Each function takes the state as it is and answers with

    an event        this is what should happen; the registry appends it if nobody was faster
    Already(seq)    it has happened, entry `seq` tells it: doing it again changes nothing
    an exception    it must not happen, and why

so that a command can be repeated after a crash or a lost connection, and repeats itself on a lost race.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foreword.artifact import Digest
from foreword.artifact.versions import precedence
from foreword.errors import Conflict, NotFound, RegistryError, UsageError
from foreword.registry.compatibility import is_serving, misfit, require_base
from foreword.registry.entries import (
    Aliased,
    Approved,
    Attested,
    BaseDeclared,
    BaseWithdrawn,
    Drifted,
    Event,
    Published,
    Released,
    Retired,
    Revoked,
    RolledBack,
    Shifted,
)
from foreword.registry.facts import Base, Claim, VersionFacts
from foreword.registry.references import Reference, check_alias
from foreword.registry.releases import Release
from foreword.registry.state import NameState, State, Version, require_live


@dataclass(frozen=True)
class Already:
    """Nothing to do: this entry did it."""

    seq: int


Decision = Event | Already


def publish(state: State, facts: VersionFacts, claims: tuple[Claim, ...]) -> Decision:
    """A new version of a name. That it is signed was checked before: `claims` are what counted.

    Raises:
        Conflict: the version number has other bytes (`registry.version_taken`).
        RegistryError: it is not newer than all versions of the name (`registry.version_not_newer`),
            or these bytes were revoked or retired.
        CompatibilityError: it fits no declared base.
    """
    known = state.versions.get(facts.digest)
    if known is not None:
        return Already(require_live(known).published.seq)
    taken = state.numbers.get((facts.name, facts.version))
    if taken is not None:
        raise Conflict(
            f"{facts.name} {facts.version} is published already with other bytes ({taken.short}, "
            f"these are {facts.digest.short}); give the new one a new version",
            code="registry.version_taken",
        )
    _require_newer(state, facts)
    require_base(facts, state.bases)
    return Published(facts, claims)


def declare_base(state: State, base: Base) -> Decision:
    """A base that is run here.

    Raises:
        Conflict: the id is declared with other facts (`registry.base_taken`).
    """
    known = state.declared.get(base.id)
    if known is None or known.withdrawn:
        return BaseDeclared(base)
    if known.base != base:
        raise Conflict(
            f"{base.id} is declared with other weights, tokenizer or geometry "
            f"({known.base.ref.fingerprint.short}, now {base.ref.fingerprint.short}); declare the new one "
            "under another id, or withdraw the old one first",
            code="registry.base_taken",
        )
    return Already(known.declared.seq)


def withdraw_base(state: State, base_id: str) -> Decision:
    """A base that is no longer run here.

    Raises:
        NotFound: it never was (`registry.base_unknown`).
        RegistryError: versions that serve now fit no other base (`registry.base_in_use`).
    """
    known = state.declared.get(base_id)
    if known is None:
        raise NotFound(
            f"no base {base_id[:80]!r} was declared; there are "
            f"{', '.join(base.id for base in state.bases) or 'none'}",
            code="registry.base_unknown",
        )
    if known.withdrawn:
        return Already(known.withdrawn.seq)
    stranded = sorted(str(version) for version in _needing(state, known.base))
    if stranded:
        raise RegistryError(
            f"{len(stranded)} versions that serve now fit {base_id} only, such as {stranded[0]}; release "
            "versions for another base first",
            code="registry.base_in_use",
        )
    return BaseWithdrawn(base_id)


def attest(state: State, digest: Digest, claim: Claim) -> Decision:
    """One more envelope about a version. That its signature counts was checked before.

    Raises:
        NotFound, RegistryError: there is no such live version.
    """
    version = require_live(state.version(digest))
    for known in version.claims:
        if known.claim.envelope == claim.envelope:
            return Already(known.mark.seq)
    return Attested(version.name, digest, claim)


def approve(state: State, reference: Reference, actor: str) -> Decision:
    """The actor agrees to a release of the version.

    Raises:
        NotFound, RegistryError: there is no such live version.
    """
    version = state.live(reference)
    for approval in version.approvals:
        if approval.actor == actor:
            return Already(approval.seq)
    return Approved(version.name, version.digest)


def release(state: State, reference: Reference, share: float, approvals: int) -> Decision:
    """Give the name's keys to a version: all of them, or as a canary the given share.

    `approvals` is how many actors other than the publisher have to agree first.

    Raises:
        UsageError: the share is not from 0 to 1 (`release.share`).
        NotFound, RegistryError: no such live version, too few approvals (`registry.not_approved`), a
            canary without a stable version (`registry.no_stable`), or another canary is running
            (`registry.canary_running`).
        CompatibilityError: it fits no base that is declared now.
    """
    share = _checked(share)
    version = state.live(reference)
    known = state.name(version.name)
    current = known.release
    if current and _gives(current, version.digest, share):
        return Already(_seq(known))
    _require_approved(version, approvals)
    require_base(version.facts, state.bases)
    if current is None and share < 1:
        raise RegistryError(
            f"nothing is stable under {known.name} yet, so there is nothing to give the other keys; "
            "release a version with share 1 first",
            code="registry.no_stable",
        )
    if current and current.canary not in (None, version.digest):
        raise RegistryError(
            f"{_named(state, current.canary)} is the canary of {known.name} with share {current.share}; "
            "shift it to 1 or roll it back first",
            code="registry.canary_running",
        )
    if current and current.stable == version.digest:
        raise RegistryError(
            f"{version} is stable already and cannot be its own canary",
            code="registry.is_stable",
        )
    return Released(version.name, version.digest, share)


def shift(state: State, name: str, share: float) -> Decision:
    """Give the running canary another share; 1 makes it stable.

    Raises:
        UsageError: the share is not from 0 to 1 (`release.share`).
        NotFound, RegistryError: no such name, nothing released, or no canary (`registry.no_canary`).
    """
    share = _checked(share)
    known = state.name(name)
    current = _released(known)
    if current.canary is not None:
        if current.share == share:
            return Already(_seq(known))
        return Shifted(name, current.canary, share)
    # The same shift again, after it has made the canary stable.
    if isinstance(known.change, Shifted) and known.change.share == share:
        return Already(_seq(known))
    raise RegistryError(
        f"{name} has no canary; start one with `foreword registry release NAME@VERSION --share`",
        code="registry.no_canary",
    )


def rollback(state: State, name: str, to: Reference | None = None) -> Decision:
    """Take the canary back, or else what is stable; `to` names the version to go back to.

    Without `to`, a name whose last change was a rollback stays as it is: whoever repeats the command
    after a lost connection must not go back twice. To go back further, name the version.

    Raises:
        NotFound, RegistryError: no such name, nothing released, nothing before it that still may be
            used (`registry.no_previous`), or `to` never was stable (`registry.never_stable`).
    """
    known = state.name(name)
    current = _released(known)
    if to is not None:
        return _back_to(known, current, state.live(to))
    if current.canary is not None:
        return RolledBack(name, current.canary, current.stable)
    if isinstance(known.change, RolledBack):
        return Already(_seq(known))
    previous = _previous(state, known)
    if previous is None:
        raise RegistryError(
            f"{_named(state, current.stable)} is stable and nothing that may still be used was stable "
            "before it; release another version",
            code="registry.no_previous",
        )
    return RolledBack(name, current.stable, previous)


def revoke(state: State, reference: Reference, reason: str) -> Decision:
    """Nobody may use this version any more. Never refused for being in use: that is the point.

    If it is stable, the name falls back to what was stable before it, or to nothing.

    Raises:
        UsageError: no reason is given (`registry.reason`).
        NotFound: no such version.
    """
    if not reason:
        raise UsageError(
            "say why the version is revoked; whoever meets it will ask", code="registry.reason"
        )
    version = state.find(reference)
    if version.status == "revoked" and version.ended:
        return Already(version.ended.seq)
    known = state.name(version.name)
    is_stable = known.release is not None and known.release.stable == version.digest
    fallback = _previous(state, known) if is_stable else None
    return Revoked(version.name, version.digest, fallback)


def retire(state: State, reference: Reference) -> Decision:
    """The version is not needed any more.

    Raises:
        NotFound: no such version.
        RegistryError: it is revoked, it serves, or an alias stands for it (`registry.in_use`).
    """
    version = state.find(reference)
    if version.status == "retired" and version.ended:
        return Already(version.ended.seq)
    require_live(version)
    aliases = state.name(version.name).aliases
    uses = [alias for alias, each in sorted(aliases.items()) if each.digest == version.digest]
    if is_serving(state, version):
        uses.insert(0, "the release")
    if uses:
        raise RegistryError(
            f"{version} is in use by {', '.join(uses)}; move that to another version first",
            code="registry.in_use",
        )
    return Retired(version.name, version.digest)


def alias(state: State, word: str, reference: Reference) -> Decision:
    """A word stands for a version of its name from now on.

    Raises:
        UsageError: the word cannot be an alias.
        NotFound, RegistryError: no such live version.
    """
    check_alias(word)
    version = state.live(reference)
    there = state.name(version.name).aliases.get(word)
    if there and there.digest == version.digest:
        return Already(there.set.seq)
    return Aliased(version.name, word, version.digest)


def unalias(state: State, name: str, word: str) -> Decision:
    """A word stands for nothing any more.

    Raises:
        UsageError: the word cannot be an alias.
        NotFound: no such name, or it never had this alias (`registry.alias_unknown`).
    """
    check_alias(word)
    there = state.name(name).aliases.get(word)
    if there is None:
        raise NotFound(f"{name} has no alias {word!r}", code="registry.alias_unknown")
    if there.digest is None:
        return Already(there.set.seq)
    return Aliased(name, word, None)


def drift(
    state: State,
    digest: Digest,
    measure: str,
    statistic: float,
    p: float,
    window: Digest,
    snapshot: Digest,
) -> Decision:
    """A version is not asked any more what it was made for. It serves on: people decide what follows.

    Raises:
        NotFound, RegistryError: there is no such live version.
        UsageError: the measure is no line of text (`registry.measure`).
    """
    version = require_live(state.version(digest))
    event = Drifted(version.name, digest, measure, statistic, p, window, snapshot)
    for known in version.drifts:
        if known.event == event:
            return Already(known.mark.seq)
    return event


def _require_newer(state: State, facts: VersionFacts) -> None:
    known = state.names.get(facts.name)
    if known is None:
        return
    newest = state.versions[known.versions[-1]].version
    if precedence(facts.version) <= precedence(newest):
        raise RegistryError(
            f"{facts.name} {facts.version} is not newer than {newest}, the newest there is; versions "
            "only grow",
            code="registry.version_not_newer",
        )


def _require_approved(version: Version, approvals: int) -> None:
    others = {mark.actor for mark in version.approvals} - {version.published.actor}
    if len(others) < approvals:
        raise RegistryError(
            f"{version} needs {approvals} approvals by others than {version.published.actor!r}, who "
            f"published it; it has {len(others)}",
            code="registry.not_approved",
        )


def _needing(state: State, base: Base) -> Iterator[Version]:
    """Versions that serve and fit this base and no other."""
    others = [other for other in state.bases if other != base]
    for known in state.names.values():
        if known.release is None:
            continue
        for digest in filter(None, (known.release.stable, known.release.canary)):
            facts = state.versions[digest].facts
            if misfit(facts, base) is None and all(misfit(facts, other) for other in others):
                yield state.versions[digest]


def _gives(release: Release, digest: Digest, share: float) -> bool:
    """True if the release is already what was asked for."""
    if share == 1:
        return release.stable == digest and release.canary is None
    return release.canary == digest and release.share == share


def _back_to(known: NameState, current: Release, version: Version) -> Decision:
    if version.digest == current.stable:
        if current.canary is None:
            return Already(_seq(known))
        return RolledBack(known.name, current.canary, current.stable)
    if version.name != known.name or version.digest not in known.history:
        raise RegistryError(
            f"{version} was never stable under {known.name}, so there is no way back to it; release it",
            code="registry.never_stable",
        )
    return RolledBack(known.name, current.stable, version.digest)


def _previous(state: State, known: NameState) -> Digest | None:
    """The latest other version that was stable before and still may be used."""
    current = known.release.stable if known.release else None
    for digest in reversed(known.history):
        if digest != current and state.versions[digest].status == "live":
            return digest
    return None


def _released(known: NameState) -> Release:
    if known.release is None:
        raise NotFound(f"nothing is released under {known.name}", code="registry.not_released")
    return known.release


def _seq(known: NameState) -> int:
    return known.changed.seq if known.changed else known.generation


def _named(state: State, digest: Digest | None) -> str:
    return str(state.versions[digest]) if digest else "nothing"


def _checked(share: float) -> float:
    if not 0 <= share <= 1:
        raise UsageError(f"a share is from 0 to 1, got {share}", code="release.share")
    return float(share)
