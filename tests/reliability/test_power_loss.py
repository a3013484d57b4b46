"""R07: after a power cut the disk holds what was synced and any part of the rest; no promise breaks."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from foreword.registry.layout import Layout
from tests.registry.scratch import scratch
from tests.reliability.crash import Harness
from tests.reliability.disk import (
    Acknowledged,
    Change,
    Disk,
    Remains,
    Step,
    Sync,
    power_cuts,
    write_out,
)
from tests.reliability.driver import Job
from tests.reliability.grounds import INNER, OnSqlite
from tests.reliability.invariants import violations
from tests.reliability.recorder import Recorder
from tests.reliability.report import LONG, Goals
from tests.reliability.trials import Trials, spread
from tests.reliability.world import OPERATIONS

pytestmark = pytest.mark.reliability("R07")

SAMPLE = 6
"""Disks for each operation, outside the long run."""


@dataclass(frozen=True)
class Traced:
    """What one run did."""

    before: Disk
    steps: list[Step]
    after: Mapping[str, bytes | None]
    """What the real disk held in the end."""


@dataclass
class Recording:
    """One operation, and everything it does to the disk."""

    trials: Trials
    scratch: Path

    def __post_init__(self) -> None:
        self._numbers = itertools.count()

    @cached_property
    def traced(self) -> Traced:
        with self.trials.place() as layout:
            root = layout.directory.parents[1]
            recorder = Recorder(root)
            run = self.trials.harness.run(Job(self.trials.operation, layout))
            steps = list(recorder.steps(run.calls))
            return Traced(recorder.blank, steps, Disk.read(root).contents())

    def cuts(self, keep: Callable[[Step], bool] = lambda _: True) -> list[Remains]:
        """What power cuts may leave if only some of the steps are done."""
        steps = [step for step in self.traced.steps if keep(step)]
        return list(power_cuts(self.traced.before, steps))

    def faults(self, remains: Remains) -> list[str]:
        place = self.scratch / str(next(self._numbers))
        write_out(remains.contents, place)
        operation, expected = self.trials.operation, self.trials.expected
        found = violations(
            Layout(place / INNER), operation, expected, acknowledged=remains.acknowledged
        )
        shutil.rmtree(place)
        return [f"{operation}, {remains.what}: {fault}" for fault in found]


@pytest.fixture(scope="module")
def recordings(harness: Harness) -> Iterator[dict[str, Recording]]:
    with scratch() as directory, scratch() as cuts:
        ground = OnSqlite(directory)
        yield {each: Recording(Trials(harness, ground, each), cuts) for each in OPERATIONS}


def test_whatever_a_power_cut_leaves_keeps_every_promise(
    recordings: dict[str, Recording], goals: Goals, capsys: pytest.CaptureFixture[str]
) -> None:
    bad: list[str] = []
    counts, tried = {}, 0
    for operation, recording in recordings.items():
        cuts = recording.cuts()
        counts[operation] = len(cuts)
        chosen = cuts if LONG else spread(cuts, SAMPLE) + least(cuts)
        tried += len(chosen)
        bad += (fault for remains in chosen for fault in recording.faults(remains))
    with capsys.disabled():
        print(f"\npower cuts: {tried} of {sum(counts.values())} disks, {counts}")
        print("\n".join(bad))
    goals.goal("SQLite: disks that break a promise, of those a power cut can leave",
               value=len(bad), passed=not bad, count=tried)  # fmt: skip


@pytest.mark.parametrize("lost", ["files", "directories"])
def test_code_that_does_not_sync_is_caught(recordings: dict[str, Recording], lost: str) -> None:
    # The same operation, its syncs taken out of the trace: then what it acknowledged can be gone.
    recording = recordings["publish"]
    before = recording.traced.before
    numbers = before.files if lost == "files" else before.directories
    cuts = recording.cuts(lambda step: not (isinstance(step, Sync) and step.owner in numbers))
    assert recording.faults(least(cuts)[0])


def test_the_model_of_a_disk_ends_where_the_real_disk_does(
    recordings: dict[str, Recording],
) -> None:
    for recording in recordings.values():
        traced = recording.traced
        disk = traced.before.copy()
        for step in traced.steps:
            if isinstance(step, Change):
                disk.apply(step)
        assert disk.contents() == traced.after
        assert Acknowledged() in traced.steps


def least(cuts: list[Remains]) -> list[Remains]:
    """The disks with nothing on them but what was synced, after it was acknowledged."""
    return [each for each in cuts if each.acknowledged and "only what was synced" in each.what]
