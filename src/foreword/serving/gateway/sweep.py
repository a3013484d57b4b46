"""Ends what runs when the access table says that it may not go on: a kill does not wait for the end.

A request is noted in `Front.running` before it asks the table for the last time, and the table has changed
before it is swept. So whatever a change ends was either refused or is found here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from foreword.serving.contract import PrefixHost
from foreword.serving.gateway.access.ended import newly_gone
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.front import Front

_log = logging.getLogger(__name__)
EVERY = 0.25
"""Seconds between two looks at the table, which also have it read again when no request does."""


class Sweep:
    """A thread that looks at the table and does what its changes lead to."""

    def __init__(self, table: Callable[[], AccessTable], front: Front, host: PrefixHost) -> None:
        self._table, self._front, self._host = table, front, host
        self._seen = AccessTable()
        self._to_forget: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="foreword-sweep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """End what the table of this moment ends, and have forgotten what its tenants computed."""
        table = self._table()
        if table is not self._seen:
            self._to_forget |= newly_gone(self._seen, table)
            self._end()
            self._seen = table
        self._forget()

    def _end(self) -> None:
        front = self._front
        # A copy, made in one go: the event loop goes on taking requests in and letting them out.
        for name, run in front.running.copy().items():
            error = front.router.why_ended(run.principal, run.route)
            if error is not None:
                run.ended = error
                front.backend.cancel(name)

    def _forget(self) -> None:
        """After their requests were cancelled, which would compute it anew. Told again if it fails."""
        while self._to_forget:
            tenant = next(iter(self._to_forget))
            self._host.forget_tenant(tenant)
            self._to_forget.discard(tenant)

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            try:
                self.look()
            except Exception as error:  # a bug or a host that is away must not end the thread
                _log.error("looking for requests to end failed: %s", type(error).__name__)
