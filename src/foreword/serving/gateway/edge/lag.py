"""How late the event loop comes to what is due: what one request costs all the others."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import suppress


class Lags:
    """The latest lags, in seconds, at even intervals.

    While the loop is blocked nobody can measure, though every request of that time waits. So a lag
    that is longer than the interval stands for the measurements it swallowed as well: at 0.05 s, one
    of 0.2 s counts as 0.2, 0.15, 0.1 and 0.05 (Tene's correction for coordinated omission).
    """

    def __init__(self, interval: float, window: float) -> None:
        self.interval = interval
        self._lags: deque[float] = deque(maxlen=max(1, round(window / interval)))

    def add(self, lag: float) -> None:
        most = self._lags.maxlen or 1
        swallowed = min(most, int(max(0.0, lag) / self.interval) + 1)
        self._lags.extend(max(0.0, lag - i * self.interval) for i in range(swallowed))

    def quantile(self, q: float) -> float:
        """The smallest lag that at least the share `q` of them does not exceed; 0 without any."""
        if not self._lags:
            return 0.0
        return sorted(self._lags)[max(0, math.ceil(q * len(self._lags)) - 1)]


class LagMonitor:
    """Measures the loop it was started on."""

    def __init__(self, *, interval: float = 0.05, window: float = 30.0) -> None:
        self._lags = Lags(interval, window)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._measure(), name="foreword-lag")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def p99(self) -> float:
        """Seconds, over the window."""
        return self._lags.quantile(0.99)

    def worst(self) -> float:
        return self._lags.quantile(1.0)

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._lags.interval
            await asyncio.sleep(self._lags.interval)
            self._lags.add(loop.time() - due)
