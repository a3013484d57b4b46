"""Looks at the journal again and again, on a thread of its own, because the database may hang."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from foreword.errors import ForewordError
from foreword.registry.state import State

_LONGEST = 2.0
"""Seconds between two looks while the database refuses: how late one that is well again is noticed."""


class Watch:
    """Calls `look` and tells what it gave or why it did not, until it is stopped.

    What is told is told on the watch's thread, together with the clock when the look began.
    """

    def __init__(
        self,
        look: Callable[[], State],
        told: Callable[[State, float], None],
        failed: Callable[[ForewordError], None],
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look, self._told, self._failed = look, told, failed
        self._interval, self._clock = interval, clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="foreword-journal", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float) -> None:
        """A look that hangs is left to itself."""
        self._stopping.set()
        self._thread.join(patience)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            failures = 0 if self._tried() else failures + 1
            self._stopping.wait(self._pause(failures))

    def _tried(self) -> bool:
        began = self._clock()
        try:
            state = self._look()
        except ForewordError as error:
            self._failed(error)
            return False
        except Exception as error:  # a bug must not end the thread that everything new comes from
            text = f"reading the journal failed with {type(error).__name__} {str(error)[:200]!r}"
            self._failed(ForewordError(text, code="bug"))
            return False
        self._told(state, began)
        return True

    def _pause(self, failures: int) -> float:
        if not failures:
            return self._interval
        # Many gateways lost the same database, and should not all come back to it at once.
        longest = min(_LONGEST, self._interval * 2.0 ** min(failures, 16))
        return longest * random.uniform(0.5, 1.0)
