"""What the reliability tests measured, goal by goal; a long run keeps it in one committed file.

The ids are those of the test plan (`R01`...). Every id in the file says which commit and machine its
values come from, so that a run of one suite renews its own ids and leaves the others honest.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "reports" / "reliability.json"
GOAL = "goal"
"""The user property of a test under which its goals are handed over as lines."""
LONG = os.environ.get("FOREWORD_LONG") == "1"
"""True in `make reliability`: the whole count, and the file is written. Else a fixed sample."""


@dataclass(frozen=True)
class Record:
    """One goal of one test, and how it came out."""

    id: str
    test: str
    goal: str
    """A sentence with the bound in it: `no input takes over 100 ms`."""
    value: float | str
    passed: bool
    count: int
    """How many inputs, cases or loads the value rests on."""
    seconds: float

    def line(self) -> str:
        verdict = "met" if self.passed else "MISSED"
        return (
            f"{self.id} {self.goal}: {self.value} ({self.count:,} in {self.seconds} s, {verdict})"
        )


@dataclass
class Goals:
    """What one test writes its goals to; the test fails at its end if one was missed."""

    id: str
    test: str
    records: list[Record] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def goal(self, goal: str, *, value: float | str, passed: bool, count: int) -> None:
        if isinstance(value, float):
            value = float(f"{value:.3g}")
        seconds = round(time.monotonic() - self.began, 1)
        self.records.append(Record(self.id, self.test, goal, value, passed, count, seconds))

    def missed(self) -> list[str]:
        return [record.line() for record in self.records if not record.passed]


def merge(
    old: dict[str, Any], records: Sequence[Record], run: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """The file's content after a run: its ids are replaced as a whole, others stay as they are."""
    new: dict[str, dict[str, Any]] = {}
    for record in records:
        entry = new.setdefault(record.id, {"passed": True, **run, "records": []})
        entry["passed"] = entry["passed"] and record.passed
        entry["records"].append({k: v for k, v in asdict(record).items() if k != "id"})
    return dict(sorted({**old, **new}.items()))


def write(records: Sequence[Record], commit: str, file: Path = FILE) -> None:
    """Renew the ids of this run in the file."""
    old = json.loads(file.read_text()) if file.exists() else {}
    run = {
        "commit": commit,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
    }
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(merge(old, records, run), indent=1, ensure_ascii=False) + "\n")


def commit() -> str:
    """The commit that is measured, marked if the tree has other changes than earlier reports."""
    changes = ["status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)reports"]
    return (_git("rev-parse", "--short=12", "HEAD") or "unknown") + (
        "-dirty" if _git(*changes) else ""
    )


def machine() -> dict[str, Any]:
    """What decides speed; nothing that names the machine or a place on it."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":")[1].strip() for line in info.splitlines() if "model name" in line]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "python": platform.python_version(),
    }


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
