"""Operations on one ground, each tried with one system call going wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from foreword.registry.layout import Layout
from tests.reliability.calls import Call
from tests.reliability.crash import Harness, Injection, Run, points
from tests.reliability.driver import Job
from tests.reliability.grounds import Ground, place_for
from tests.reliability.invariants import Expected, expect, violations
from tests.reliability.world import OPERATIONS

_T = TypeVar("_T")


@dataclass(frozen=True)
class Trial:
    """What came of one try."""

    injection: Injection
    run: Run
    faults: tuple[str, ...]
    """What should hold and does not."""


@dataclass
class Trials:
    """One operation on one ground."""

    harness: Harness
    ground: Ground
    operation: str

    @cached_property
    def expected(self) -> Expected:
        with self.place() as layout:
            return expect(layout, self.operation)

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """What it calls if nothing goes wrong."""
        with self.place() as layout:
            run = self.harness.run(self._job(layout))
        if run.broken or run.refusal or not run.acknowledged:
            raise RuntimeError(f"{self.operation} does not even work undisturbed: {run.told}")
        return run.calls

    @property
    def points(self) -> tuple[Call, ...]:
        return tuple(points(self.calls))

    def run(self, injection: Injection, while_stopped: Callable[[], None] | None = None) -> Trial:
        """Do it on a fresh copy with this going wrong, and look at what is left."""
        with self.place() as layout:
            run = self.harness.run(self._job(layout), injection, while_stopped)
            found = violations(layout, self.operation, self.expected, acknowledged=run.acknowledged)
        faults = [*found, run.broken] if run.broken else found
        where = f"{self.operation} on {self.ground.name}, {injection}"
        return Trial(injection, run, tuple(f"{where}: {fault}" for fault in faults))

    def place(self) -> contextlib.AbstractContextManager[Layout]:
        return place_for(self.operation, self.ground)

    def _job(self, layout: Layout) -> Job:
        return Job(self.operation, layout, self.ground.environment)


def all_trials(harness: Harness, ground: Ground) -> list[Trials]:
    return [Trials(harness, ground, operation) for operation in OPERATIONS]


def spread(things: Sequence[_T], most: int) -> list[_T]:
    """At most so many of them, evenly from the first to the last."""
    if len(things) <= most:
        return list(things)
    return [things[round(i * (len(things) - 1) / (most - 1))] for i in range(most)]
