"""R06: an operation killed at any of its writes leaves a registry that keeps every promise."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.registry import servers
from tests.registry.scratch import scratch
from tests.reliability.crash import Harness, Injection, beyond
from tests.reliability.grounds import OnPostgres, OnSqlite
from tests.reliability.report import LONG, Goals
from tests.reliability.trials import Trials, all_trials, spread

pytestmark = pytest.mark.reliability("R06")

SAMPLE = 12
"""Kills on one ground, outside the long run."""
CRASHES = 60 if LONG else 2
"""Of the server."""


def test_killed_at_any_write_it_keeps_every_promise(
    trials: list[Trials], goals: Goals, capsys: pytest.CaptureFixture[str]
) -> None:
    database = trials[0].ground.name
    points = [(each, call) for each in trials for call in each.points]
    tried = points if LONG else spread(points, SAMPLE)
    bad: list[str] = []
    for each, call in tried:
        trial = each.run(Injection(call.name, call.place, "signal=KILL"))
        bad += trial.faults
        if not trial.run.was_killed:
            bad.append(f"{each.operation}: {trial.injection} killed nothing")
    with capsys.disabled():
        counts = {each.operation: len(each.points) for each in trials}
        print(f"\n{database}: killed at {len(tried)} of {len(points)} points, {counts}")
        print("\n".join(bad))
    goals.goal(f"{database}: states that break a promise, of {len(points)} that a kill can leave",
               value=len(bad), passed=not bad, count=len(tried))  # fmt: skip


def test_no_write_comes_after_the_last_one_that_was_tried(
    trials: list[Trials], goals: Goals
) -> None:
    # The loop over `when=1, 2, 3...` has to end with a run in which nothing is killed.
    runs = [each.run(Injection(call.name, call.place, "signal=KILL"))
            for each in trials if LONG or each.operation == "rollback"
            for call in beyond(each.calls)]  # fmt: skip
    more = [str(run.injection) for run in runs if run.run.was_killed or run.faults]
    goals.goal(f"{trials[0].ground.name}: a kill at the write after the last one comes too late",
               value=", ".join(more) or "it does", passed=not more, count=len(runs))  # fmt: skip


def test_a_publish_that_writes_its_entry_first_is_caught(harness: Harness) -> None:
    with scratch() as directory:
        broken = Trials(harness, OnSqlite(directory), "publish, entry first")
        trial = broken.run(Injection("mkdir", 1, "signal=KILL"))
    assert len(trial.faults) == 1
    assert "blob" in trial.faults[0]
    assert "is not in" in trial.faults[0]


def test_the_server_crashes_at_any_word_of_the_talk(
    harness: Harness, goals: Goals, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scratch() as directory, servers.postgres() as server, crashes(server) as crash:
        monkeypatch.setenv("PGPASSWORD", server.password)
        ground = OnPostgres(directory, server)
        points = [
            (each, call) for each in all_trials(harness, ground) for call in each.points
            if call.name in ("sendto", "recvfrom")
        ]  # fmt: skip
        tried = spread(points, CRASHES)
        # The process is stopped as the call returns: what it sent is on its way, or was answered.
        runs = [each.run(Injection(call.name, call.place, "signal=STOP"), crash.now)
                for each, call in tried]  # fmt: skip
    bad = [fault for run in runs for fault in run.faults]
    print("\n".join(bad))
    assert crash.count == len(tried)
    goals.goal("PostgreSQL: states that break a promise, of those a crash of the server can leave",
               value=len(bad), passed=not bad, count=len(tried))  # fmt: skip


class Crash:
    """Ends a server as `pg_ctl stop -m immediate` does, and starts it again."""

    def __init__(self, server: servers.PostgresServer) -> None:
        self.count = 0
        self._server = server
        self._process = server.process

    def now(self) -> None:
        command: Any = self._server.process.args
        data = Path(command[command.index("-D") + 1])
        self.end()
        self._process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, cwd=data, user=data.stat().st_uid
        )
        self._wait()
        self.count += 1

    def end(self) -> None:
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def _wait(self) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                return self._server.execute("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)


@contextmanager
def crashes(server: servers.PostgresServer) -> Iterator[Crash]:
    crash = Crash(server)
    try:
        yield crash
    finally:
        crash.end()
