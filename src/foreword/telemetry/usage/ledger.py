"""The sink that counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from foreword.telemetry.records import Record, RequestFinished
from foreword.telemetry.usage.prices import Prices
from foreword.telemetry.usage.rows import Counts, Key, Rows, add
from foreword.telemetry.usage.segments import Segments

_MOST_KEYS = 10_000
"""Keys in memory; more are written before the interval is over."""


class UsageSink:
    """Counts finished requests, and writes what it counted every `interval` seconds and at the end.

    A process that is killed loses what was counted since the last write: at most `interval`
    seconds, and what waited in this sink's queue. What was written is there, once.

    Args:
        directory: of this process alone.
        prices: what is charged; costs are computed when a request ends, so a new table changes
            nothing that was counted before.
        interval: seconds.
        clock: Unix time.

    Raises:
        StorageError: another process writes there (`storage.busy`), or the disk refuses.
    """

    def __init__(
        self,
        directory: Path,
        prices: Prices | None = None,
        *,
        interval: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._prices, self._interval, self._clock = prices or Prices(), interval, clock
        self._segments = Segments(directory)
        self._rows: Rows = {}
        self._written = clock()
        self._day = self._today()

    def take(self, record: Record) -> None:
        if not isinstance(record, RequestFinished):
            return
        price = self._prices.price(record.attached.name or "base")
        key, counts = _counted(record, price.of(*_tokens(record)), self._prices.currency)
        add(self._rows, {key: counts})
        if len(self._rows) >= _MOST_KEYS:
            self._write()

    def rest(self) -> None:
        """Write if it is time to.

        Raises:
            StorageError: the disk refused; the counts are kept and written later.
        """
        if not 0 <= self._clock() - self._written < self._interval:
            self._write()

    def close(self) -> None:
        try:
            self._write()
        finally:
            self._segments.close()

    def _write(self) -> None:
        self._written = self._clock()  # also if it fails: not ten times a second
        if self._rows:
            self._segments.append(self._rows)
            self._rows = {}
        if (day := self._today()) != self._day:
            self._day = day
            self._segments.rotate()

    def _today(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%d")


def _counted(record: RequestFinished, cost: Decimal, currency: str) -> tuple[Key, Counts]:
    hour = datetime.fromtimestamp(record.time, UTC).strftime("%Y-%m-%dT%H")
    attached = record.attached
    key = Key(hour, record.tenant, attached.name or "base", attached.version, currency)
    prompt, cached, completion = _tokens(record)
    failed = int(record.status >= 400)
    return key, Counts(1, failed, prompt, cached, completion, record.duration, cost)


def _tokens(record: RequestFinished) -> tuple[int, int, int]:
    return record.prompt_tokens, record.cached_tokens, record.completion_tokens
