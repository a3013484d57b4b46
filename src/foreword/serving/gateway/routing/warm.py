"""Before a new release takes effect it is made resident, so that no request pays for the load.

Only what adds a version to a name waits, and only for a moment. What takes one away takes effect at
once: a rollback, a revocation, a canary that another one replaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from foreword.artifact import Digest
from foreword.registry.entries import Released, Shifted
from foreword.registry.releases import Release
from foreword.registry.state import NameState, State

WARM_SECONDS = 0.5
"""How long a release may wait for its prefix. With a look at the journal every quarter of a second it
has taken effect within one second."""


@dataclass(frozen=True)
class Held:
    """A name whose new release waits."""

    serving: Release | None
    """What it serves meanwhile."""
    missing: frozenset[Digest]
    """What has to be resident first."""
    until: float
    """When it waits no longer, on the clock of `time.monotonic()`."""


def digests_of(release: Release | None) -> frozenset[Digest]:
    """What a release may give to a request."""
    return frozenset(filter(None, (release.stable, release.canary))) if release else frozenset()


def hold(
    before: NameState | None,
    after: NameState,
    serving: Release | None,
    state: State,
    cold: Iterable[Digest],
    until: float,
) -> Held | None:
    """How a name waits for its new release; None if that takes effect at once.

    `serving` is what the name gives to requests now, which is not what `before` says if it waits
    already; `cold` are versions that are not resident.
    """
    release = after.release
    missing = (digests_of(release) - digests_of(serving)) & frozenset(cold)
    if release is None or not missing or not isinstance(after.change, Released | Shifted):
        return None
    if serving is None:
        return Held(None, missing, until)
    if not _goes_on(before, after, release) or state.versions[serving.stable].status != "live":
        return None
    return Held(_without_what_ended(serving, release), missing, until)


def _goes_on(before: NameState | None, after: NameState, release: Release) -> bool:
    """Whether what was stable still is, or was until this release: nobody took it back in between."""
    stable = before.release.stable if before and before.release else None
    return stable in (release.stable, *after.history[-1:])


def _without_what_ended(serving: Release, release: Release) -> Release:
    if serving.canary in digests_of(release):
        return serving
    return Release(serving.name, serving.stable)
