"""How what is known moves on: from one state of the journal to the next, and from held to served.

Pure: the follower brings states, residents and the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from foreword.artifact import Digest
from foreword.registry.entries import GENESIS
from foreword.registry.releases import Release
from foreword.registry.state import State
from foreword.serving.gateway.routing.table import ReleaseTable, advance, changed
from foreword.serving.gateway.routing.warm import WARM_SECONDS, Held, digests_of, hold

MOST_HELD = 64
"""Names whose releases wait at the same time. Warming more than a host loads in a moment helps nobody."""

IsWarm = Callable[[Digest], bool]


@dataclass(frozen=True)
class Followed:
    """What a follower knows."""

    state: State = field(default_factory=State)
    table: ReleaseTable = field(default_factory=ReleaseTable)
    held: Mapping[str, Held] = field(default_factory=dict)

    @property
    def is_first(self) -> bool:
        """Whether the journal was not read yet."""
        return self.state.head == GENESIS


def follow(
    before: Followed, state: State, base: Digest, is_warm: IsWarm, now: float
) -> tuple[Followed, list[str]]:
    """What is known with a new state, and the names about which it says something new.

    The first state is served as it is: there is nothing that could be served meanwhile.
    """
    names = changed(before.state, state)
    if before.is_first:
        empty = ReleaseTable(prompts=before.table.prompts)
        return Followed(state, advance(empty, state, names, {})), names
    held = dict(before.held)
    for name in names:
        old = held.pop(name, None)
        new = _held(before, state, base, is_warm, name, _until(old, now))
        if new and len(held) < MOST_HELD:
            held[name] = new
    return Followed(state, advance(before.table, state, names, _serving(held)), held), names


def settle(before: Followed, is_warm: IsWarm, now: float) -> Followed:
    """What is known once the releases that waited long enough, or need not wait, take effect."""
    over = [
        name
        for name, held in before.held.items()
        if now >= held.until or all(map(is_warm, held.missing))
    ]
    if not over:
        return before
    held = {name: each for name, each in before.held.items() if name not in over}
    table = advance(before.table, before.state, over, _serving(held))
    return replace(before, table=table, held=held)


def ended(before: ReleaseTable, after: ReleaseTable, names: Iterable[str]) -> list[Digest]:
    """Versions of these names that were live and are not any more."""
    return [
        digest
        for name in names
        for digest in after.names[name].versions.values()
        if before.serves(digest) and not after.serves(digest)
    ]


def moved(before: ReleaseTable, after: ReleaseTable, names: Iterable[str]) -> list[str]:
    """Names of these that give requests something else than before."""
    return [name for name in names if _release(before, name) != _release(after, name)]


def fitting(table: ReleaseTable, digests: Iterable[Digest], base: Digest) -> list[Digest]:
    """Those of these versions that are live and were made for a base."""
    return [
        digest for digest in digests if table.serves(digest) and table.versions[digest].base == base
    ]


def _held(
    before: Followed, state: State, base: Digest, is_warm: IsWarm, name: str, until: float
) -> Held | None:
    after = state.names[name]
    cold = [
        digest
        for digest in digests_of(after.release)
        if state.versions[digest].facts.base.fingerprint == base and not is_warm(digest)
    ]
    serving = _release(before.table, name)
    return hold(before.state.names.get(name), after, serving, state, cold, until)


def _until(old: Held | None, now: float) -> float:
    # One release after another must not keep a name waiting for ever.
    return min(now + WARM_SECONDS, old.until) if old else now + WARM_SECONDS


def _serving(held: Mapping[str, Held]) -> dict[str, Release | None]:
    return {name: each.serving for name, each in held.items()}


def _release(table: ReleaseTable, name: str) -> Release | None:
    named = table.names.get(name)
    return named.release if named else None
