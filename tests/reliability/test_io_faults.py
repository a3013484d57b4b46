"""R08: a write that fails gives a typed error, nothing by half, and the next try succeeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.calls import Call
from tests.reliability.crash import Injection
from tests.reliability.report import LONG, ROOT, Goals
from tests.reliability.trials import Trials, spread
from tests.reliability.world import OPERATIONS

pytestmark = pytest.mark.reliability("R08")

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EINTR")
SAMPLE = 18
"""Faults on one ground, outside the long run."""


def test_a_write_that_fails_leaves_nothing_by_half(
    trials: list[Trials], goals: Goals, capsys: pytest.CaptureFixture[str]
) -> None:
    database = trials[0].ground.name
    faults = [
        (each, Injection(call.name, call.place, f"error={error}"))
        for each in trials
        for number, call in enumerate(filter(can_fail, each.points))
        for error in (ERRORS if LONG else [ERRORS[number % len(ERRORS)]])
    ]
    tried = faults if LONG else spread(faults, SAMPLE)
    bad: list[str] = []
    refused, untouched = 0, 0
    for each, injection in tried:
        trial = each.run(injection)
        bad += trial.faults
        refused += trial.run.refusal is not None
        untouched += not trial.run.was_injected
    with capsys.disabled():
        print(
            f"\n{database}: {len(tried)} faults, {refused} refused, the others overcome or unseen"
        )
        print("\n".join(bad))
    goals.goal(f"{database}: states that break a promise, and errors that are not typed",
               value=len(bad), passed=not bad, count=len(tried))  # fmt: skip
    goals.goal(f"{database}: every fault really happened (value is how many did not)",
               value=untouched, passed=not untouched, count=len(tried))  # fmt: skip


def test_a_full_disk_is_a_typed_error_and_costs_nothing(
    tmp_path: Path, goals: Goals, capsys: pytest.CaptureFixture[str]
) -> None:
    every, operations = (1, OPERATIONS) if LONG else (5, ["init", "publish"])
    came = on_a_small_disk(tmp_path, [str(every), *operations])
    with capsys.disabled():
        print(f"\nSQLite on a full disk: {came['codes']}")
        print("\n".join(came["faults"]))
    tried, full = sum(came["codes"].values()), came["codes"].get("storage.full", 0)
    goals.goal("SQLite: states that break a promise, on a disk with room for so much and no more",
               value=len(came["faults"]), passed=not came["faults"], count=tried)  # fmt: skip
    goals.goal("of the tries that failed, all said that the disk is full",
               value=full, passed=full == tried - came["codes"]["done"] > 0, count=tried)  # fmt: skip


def on_a_small_disk(directory: Path, arguments: list[str]) -> dict[str, Any]:
    """What full_disk.py says, run in a mount namespace of its own with 8 MiB of memory for a disk."""
    enter = (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    )
    if subprocess.run([*enter, "true"], capture_output=True).returncode:
        pytest.skip("needs root, or a kernel where everybody may have a mount namespace")
    script = 'mount -t tmpfs -o size=8m none "$1" && exec "$0" -m tests.reliability.full_disk "$@"'
    ran = subprocess.run(
        [*enter, "sh", "-c", script, sys.executable, str(directory), *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ran.returncode:
        pytest.fail(f"it ended with {ran.returncode}: {ran.stderr[-2000:]}")
    came: dict[str, Any] = json.loads(ran.stdout)
    return came


def can_fail(call: Call) -> bool:
    """Not the report to this process; and a `sendto` that fails on a connection that lives is nothing
    that happens: the client would wait for ever for the answer to what it never sent. That is what
    crashes of the server are for, see test_crash.py."""
    return not call.reports and call.name != "sendto"
