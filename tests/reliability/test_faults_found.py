"""R27: fsck finds every fault that is put into a registry, and no fault where there is none."""

from __future__ import annotations

import collections
import itertools
import random
from pathlib import Path

import pytest

from tests.registry.faults import FAULTS, healthy
from tests.registry.scratch import scratch
from tests.reliability import report

COUNT = 1_000 if report.LONG else 100


@pytest.mark.reliability("R27")
def test_every_injected_fault_is_found(tmp_path: Path, goals: report.Goals) -> None:
    seed = healthy(tmp_path / "seed")
    rng = random.Random(27)
    missed: list[str] = []
    kinds: collections.Counter[str] = collections.Counter()
    for kind in itertools.islice(itertools.cycle(FAULTS), COUNT):
        with scratch() as directory:
            place = seed.copy(directory / "registry")
            expected = FAULTS[kind](place, rng)
            if not expected.met_by(place.look()):
                missed.append(kind)
            kinds[kind] += 1
    goals.goal("every injected fault is found", value=f"{COUNT - len(missed)} of {COUNT}",
               passed=not missed, count=COUNT)  # fmt: skip
    goals.goal("kinds of faults", value=len(kinds), passed=len(kinds) == len(FAULTS), count=COUNT)
    alarms = len(seed.look().findings)
    goals.goal("no finding where there is no fault", value=alarms, passed=not alarms, count=1)
    assert not missed, missed
