"""What the operator's API is given to look at and to act on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from foreword.serving.contract import PrefixHost
from foreword.serving.gateway.access.store import AccessStore
from foreword.serving.gateway.routing.table import ReleaseTable
from foreword.telemetry.usage import Usage


class SeesReleases(Protocol):
    """Whoever follows the journal in this process."""

    @property
    def table(self) -> ReleaseTable: ...

    @property
    def age(self) -> float:
        """Seconds since the journal was last read."""
        ...


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class AdminParts:
    """What is None is not there, and asking for it is refused (`admin.not_here`)."""

    store: AccessStore
    releases: SeesReleases | None = None
    host: PrefixHost | None = None
    drain: Callable[[], None] | None = None
    """Take no new requests, finish those that are there, and stop."""
    usage: Callable[[], Usage] | None = None
    """What tenants have used so far."""
    now: Callable[[], datetime] = _now
