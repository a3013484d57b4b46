"""What an event did, in one sentence, and what people usually do next. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from foreword.artifact import Digest
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
from foreword.registry.facts import Claim
from foreword.registry.releases import Release
from foreword.registry.state import Mark, State


def happened(event: Event, state: State) -> str:
    """One sentence without a full stop, as it was when it happened."""
    return _HAPPENED[type(event)](event, state)


def next_step(event: Event, state: State) -> str:
    """A command, or a hint."""
    return _NEXT[type(event)](event, state)


def percent(share: float) -> str:
    """0.125 as `12.5 %`."""
    return f"{share * 100:.4g} %"


def mark(mark: Mark) -> str:
    """When, by whom, in which entry and why."""
    why = f": {mark.reason}" if mark.reason else ""
    return f"{mark.time} by {mark.actor} (entry {mark.seq}){why}"


def claim(claim: Claim) -> str:
    """What an envelope says, and whose word it is."""
    said = f"{claim.kind} {claim.verdict}" if claim.verdict else "signature"
    return f"{said} by {', '.join(claim.signers)}"


def drift(event: Drifted) -> str:
    """What changed, how sure that is, and where the data is."""
    return (
        f"{event.measure} {event.statistic:.4g} (p {event.p:.2g}), snapshot {event.snapshot.short}"
    )


def release_cells(release: Release | None, state: State) -> tuple[str, str]:
    """What is stable and what is the canary, `-` for nothing."""
    if release is None:
        return "-", "-"
    stable = state.versions[release.stable].version
    if release.canary is None:
        return stable, "-"
    return stable, f"{state.versions[release.canary].version} ({percent(release.share)})"


def _number(state: State, digest: Digest) -> str:
    return state.version(digest).version


def _ref(state: State, digest: Digest) -> str:
    version = state.version(digest)
    return f"{version.name}@{version.version}"


def _base_declared(event: BaseDeclared, _state: State) -> str:
    ref = event.base.ref
    return f"{ref.id} is run here ({ref.architecture}, {ref.fingerprint.short})"


def _base_withdrawn(event: BaseWithdrawn, _state: State) -> str:
    return f"{event.id} is not run here any more"


def _published(event: Published, _state: State) -> str:
    return f"published {event.name} {event.facts.version} ({event.digest})"


def _attested(event: Attested, state: State) -> str:
    claim = event.claim
    said = f"{claim.kind} {claim.verdict}" if claim.verdict else "one more signature"
    return f"{state.version(event.digest)} has {said}"


def _approved(event: Approved, state: State) -> str:
    return f"approved {state.version(event.digest)}"


def _shared(event: Released | Shifted, state: State) -> str:
    version = state.version(event.digest)
    if event.share == 1:
        return f"{version} is stable"
    return f"{version} is the canary and gets {percent(event.share)} of the keys"


def _rolled_back(event: RolledBack, state: State) -> str:
    left, stable = _number(state, event.left), _number(state, event.stable)
    return f"took {event.name} {left} back, {stable} is stable"


def _revoked(event: Revoked, state: State) -> str:
    said = f"revoked {state.version(event.digest)}"
    return f"{said}, {_number(state, event.fallback)} is stable again" if event.fallback else said


def _retired(event: Retired, state: State) -> str:
    return f"retired {state.version(event.digest)}"


def _aliased(event: Aliased, state: State) -> str:
    means = _number(state, event.digest) if event.digest else "nothing any more"
    return f"{event.name}@{event.alias} is {means}"


def _drifted(event: Drifted, state: State) -> str:
    return f"{state.version(event.digest)} drifted: {drift(event)}"


def _publish(_event: BaseDeclared, _state: State) -> str:
    return "foreword registry publish ARTIFACT, for a prefix that was trained on it"


def _see_bases(_event: BaseWithdrawn, _state: State) -> str:
    return "foreword registry matrix shows what fits the bases that are left"


def _release(event: Published | Approved, state: State) -> str:
    return f"foreword registry release {_ref(state, event.digest)}"


def _show(event: Attested, state: State) -> str:
    return f"foreword registry show {_ref(state, event.digest)}"


def _after_release(event: Released | Shifted, state: State) -> str:
    if event.share < 1:
        return (
            f"foreword registry shift {event.name} --share S gives it more, "
            f"foreword registry rollback {event.name} takes it back"
        )
    if state.name(event.name).history:
        return f"foreword registry rollback {event.name} takes it back"
    return f'foreword generate --base BASE --prefix {event.name} "..."'


def _after_rollback(event: RolledBack, state: State) -> str:
    return (
        f"foreword registry why {event.name}; revoke {_ref(state, event.left)} if nobody may use it"
    )


def _after_revocation(event: Revoked, state: State) -> str:
    if state.name(event.name).release is None:
        return (
            f"nothing is released under {event.name} now; "
            f"foreword registry release {event.name}@VERSION"
        )
    return "put the digest under [revoked] in trust.toml too, for copies outside of this registry"


def _reclaim(_event: Retired, _state: State) -> str:
    return "foreword registry gc reclaims what only it needed"


def _use_alias(event: Aliased, _state: State) -> str:
    return f"foreword registry show {event.name}"


def _retrain(event: Drifted, _state: State) -> str:
    return f"train a new version of {event.name} with the rows of the snapshot; what serves now serves on"


_HAPPENED: Mapping[type[Event], Callable[[Any, State], str]] = {
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
_NEXT: Mapping[type[Event], Callable[[Any, State], str]] = {
    BaseDeclared: _publish,
    BaseWithdrawn: _see_bases,
    Published: _release,
    Attested: _show,
    Approved: _release,
    Released: _after_release,
    Shifted: _after_release,
    RolledBack: _after_rollback,
    Revoked: _after_revocation,
    Retired: _reclaim,
    Aliased: _use_alias,
    Drifted: _retrain,
}
