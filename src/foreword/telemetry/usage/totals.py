"""Reading what was counted, from one directory or from those of all replicas."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from foreword.telemetry.usage.rows import Counts, Key, Rows, Total, add
from foreword.telemetry.usage.segments import read_segments


@dataclass(frozen=True)
class Usage:
    """Counts by tenant, prefix, version, hour and currency."""

    rows: Rows = field(default_factory=dict)
    damaged: int = 0
    """Lines that could not be read; their counts are missing here."""

    def since(self, moment: datetime) -> Usage:
        """From the hour that `moment` lies in."""
        first = moment.astimezone(UTC).strftime("%Y-%m-%dT%H")
        return Usage({k: v for k, v in self.rows.items() if k.hour >= first}, self.damaged)

    def totals(self, tenant: str | None = None, since: datetime | None = None) -> tuple[Total, ...]:
        """One for each tenant, prefix and currency, in this order; of one tenant if it is named."""
        chosen = self.since(since).rows if since else self.rows
        sums: dict[tuple[str, str, str], Counts] = {}
        for key, counts in chosen.items():
            if tenant in (None, key.tenant):
                group = _group(key)
                sums[group] = sums.get(group, Counts()) + counts
        return tuple(Total(*group, counts) for group, counts in sorted(sums.items()))


def read_usage(directories: Path | Iterable[Path]) -> Usage:
    """All that was written so far. May be called while sinks are writing.

    Raises:
        StorageError: a directory cannot be read.
    """
    rows: Rows = {}
    damaged = 0
    for directory in [directories] if isinstance(directories, Path) else directories:
        for lines, broken in read_segments(directory):
            damaged += broken
            for line in lines:
                add(rows, line)
    return Usage(rows, damaged)


def _group(key: Key) -> tuple[str, str, str]:
    return key.tenant, key.prefix, key.currency
