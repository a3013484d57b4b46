"""The report cannot say that a goal was met when it was not, or when nobody looked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.reliability.report import ROOT, Goals, Record, machine, merge, write

RUN = {"commit": "abc", "date": "2026-01-31T12:00:00Z", "machine": {}}


def record(id: str, goal: str = "g", passed: bool = True) -> Record:
    return Record(id, "test_x", goal, 1, passed, 10, 0.5)


def test_records_of_one_id_stand_together_and_pass_together() -> None:
    found = merge({}, [record("R02"), record("R01", "a"), record("R01", "b", passed=False)], RUN)
    assert list(found) == ["R01", "R02"]
    assert [entry["goal"] for entry in found["R01"]["records"]] == ["a", "b"]
    assert (found["R01"]["passed"], found["R02"]["passed"]) == (False, True)


def test_a_run_replaces_its_own_ids_and_no_others() -> None:
    old = merge({}, [record("R01", "old"), record("R02", "old")], {**RUN, "commit": "old"})
    found = merge(old, [record("R01", "new")], RUN)
    assert [entry["goal"] for entry in found["R01"]["records"]] == ["new"]
    assert (found["R01"]["commit"], found["R02"]["commit"]) == ("abc", "old")


def test_the_file_is_readable_and_names_no_place(tmp_path: Path) -> None:
    file = tmp_path / "reports" / "reliability.json"
    goals = Goals("R01", "test_x")
    goals.goal("at most 2", value=1.23456, passed=True, count=3)
    write(goals.records, "abc", file)
    first = file.read_text()
    write(goals.records, "abc", file)
    entry = json.loads(first)["R01"]
    assert entry["records"][0]["value"] == 1.23
    assert entry["machine"] == machine()
    assert str(ROOT) not in first
    assert first.count("\n") > 10, "one value a line, for a diff"


SUITE = """
import pytest
pytestmark = pytest.mark.reliability("R99")
def test_met(goals): goals.goal("met", value=1, passed=True, count=1)
def test_missed(goals):
    goals.goal("missed", value=2, passed=False, count=1)
    goals.goal("also said", value=3, passed=True, count=1)
def test_broken(goals): raise KeyError("before any goal")
"""


def run(tmp_path: Path, suite: str, *options: str, long: bool = False) -> Any:
    (tmp_path / "test_suite.py").write_text(suite)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.reliability.conftest",
               "--rootdir", str(tmp_path), "-c", os.devnull, str(tmp_path), *options]  # fmt: skip
    environment = {**os.environ, "FOREWORD_LONG": str(int(long))}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_missed_goal_and_a_broken_test_fail_the_run_and_are_written_down(tmp_path: Path) -> None:
    done = run(tmp_path, SUITE)
    assert done.returncode == 1, done.stdout
    summary = done.stdout[done.stdout.index("reliability, sample") :]
    assert re.findall(r"(?m)^R99 (.*): (\w+) \(.*, (\w+)\)", summary) == [
        ("met", "1", "met"),
        ("missed", "2", "MISSED"),
        ("also said", "3", "met"),
        ("the test runs to its end", "KeyError", "MISSED"),
    ]


def test_a_goal_belongs_to_an_id_of_the_plan(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_x(goals): pass\n")
    assert done.returncode == 1
    assert "needs @pytest.mark.reliability(id)" in done.stdout


def test_half_of_an_id_is_not_written_down(tmp_path: Path) -> None:
    done = run(tmp_path, SUITE, "-k", "met", long=True)
    assert done.returncode == 0
    assert "not written: only a part of the tests ran" in done.stdout


def test_the_readme_cites_only_what_the_committed_report_says_passed() -> None:
    found = json.loads((ROOT / "reports" / "reliability.json").read_text())
    cited = set(re.findall(r"\bR\d\d\b", (ROOT / "README.md").read_text()))
    assert cited
    assert {each for each in cited if not found.get(each, {}).get("passed")} == set()
