"""What has to hold however an operation was cut short.

1. The registry opens, and `fsck` finds nothing but leftovers.
2. What was acknowledged is there; what was not is wholly there or not at all.
3. Every version that can be seen can be fetched, with all its blobs, and verifies.
4. The same operation again succeeds and leads to the state of one that was never interrupted.
5. gc takes what was left over, and nothing that is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foreword.artifact import Digest
from foreword.errors import ForewordError, NotFound
from foreword.registry.entries import GENESIS, Head
from foreword.registry.fsck import fsck
from foreword.registry.gc import condemned, gc, needed
from foreword.registry.layout import Layout
from foreword.registry.registry import Registry
from tests.reliability.world import LONG_AFTER, NOW, perform, policy


@dataclass(frozen=True)
class Whole:
    """A registry by what does not depend on the way there: the journal's last hash, and the blobs."""

    head: Head
    blobs: frozenset[Digest]


@dataclass(frozen=True)
class Expected:
    """An operation that nobody interrupted."""

    before: Head
    after: Whole
    collected: Whole
    """And once all that is not needed is gone."""


def expect(layout: Layout, operation: str) -> Expected:
    """Do an operation on a copy, to know what it leads to."""
    before = _head(layout)
    perform(operation, layout)
    return Expected(before, _whole(layout), _collected(layout))


def violations(
    layout: Layout, operation: str, expected: Expected, *, acknowledged: bool
) -> list[str]:
    """What does not hold after the operation was cut short on this registry."""
    try:
        return list(_violations(layout, operation, expected, acknowledged))
    except (ForewordError, ValueError) as e:
        return [f"{type(e).__name__}: {e}"]


def _violations(
    layout: Layout, operation: str, expected: Expected, acknowledged: bool
) -> Iterator[str]:
    found = _head(layout)
    if found not in (expected.before, expected.after.head):
        yield f"the journal is at {found}, which is neither before nor after"
    if acknowledged and _whole(layout) != expected.after:
        yield f"it was acknowledged and led to {_whole(layout)} instead of {expected.after}"
    if found != GENESIS or acknowledged:
        _fetch_all(layout)
        found_wrong = (each for each in _findings(layout) if not each.startswith("leftover"))
        yield from (f"fsck: {finding}" for finding in found_wrong)
    perform(operation, layout)
    _fetch_all(layout)
    collected = _collected(layout)
    if collected != expected.collected:
        yield f"done again it leads to {collected} instead of {expected.collected}"
    yield from (f"fsck after gc: {finding}" for finding in _findings(layout))


def _head(layout: Layout) -> Head:
    """`GENESIS` also if there is no registry yet: one that is being made is there at once or not."""
    try:
        with Registry.open(layout.directory) as registry:
            return registry.refresh().head
    except NotFound as e:
        if e.code != "registry.missing":
            raise
        return GENESIS


def _fetch_all(layout: Layout) -> None:
    with Registry.open(layout.directory) as registry:
        for version in registry.refresh().versions.values():
            if version.status == "live":
                registry.fetch(version.digest, policy(), NOW)


def _findings(layout: Layout) -> list[str]:
    found = fsck(layout, LONG_AFTER, policy=policy()).findings
    return [
        f"{finding.severity} {finding.code} {finding.where}: {finding.what}" for finding in found
    ]


def _whole(layout: Layout) -> Whole:
    with Registry.open(layout.directory) as registry:
        state = registry.refresh()
        stored = {blob.digest for blob in registry.blobs.stored()}
        return Whole(state.head, frozenset(stored))


def _collected(layout: Layout) -> Whole:
    """All is old enough to go. Twice, because what the first run condemns the second destroys."""
    with Registry.open(layout.directory) as registry:
        for _ in range(2):
            gc(registry, LONG_AFTER, apply=True)
        stored = {blob.digest for blob in registry.blobs.stored()}
        waiting = {blob.digest for blob in condemned(registry.blobs).stored()}
        if waiting or stored != set(needed(registry.refresh())):
            raise ValueError(f"after gc there are {stored}, and {waiting} condemned")
        return Whole(registry.state.head, frozenset(stored))
