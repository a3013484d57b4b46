"""What every benchmark shares: arguments, claims, the machine, and one JSON file as the result."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("FOREWORD_DATA", ROOT.parent / "shared" / "data"))


@dataclass(frozen=True)
class Claim:
    """One number we say about ourselves, with the goal it was measured against."""

    name: str
    value: float
    goal: float
    better: Literal["higher", "lower"]
    unit: str

    @property
    def met(self) -> bool:
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal

    def line(self) -> str:
        sign = ">=" if self.better == "higher" else "<="
        verdict = "met" if self.met else "MISSED"
        return f"{self.name}: {self.value:.3g} {self.unit} (goal {sign} {self.goal:g}, {verdict})"


@dataclass(frozen=True)
class Result:
    """Claims and the raw figures of both sides they were computed from."""

    claims: Sequence[Claim]
    raw: dict[str, Any]


def main(measure: Callable[[bool], Result]) -> None:
    """Run `measure(quick)`, print each claim as a line, and write the JSON file."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--quick", action="store_true", help="a few minutes instead of the full run"
    )
    parser.add_argument("--out", type=Path, help="where to write the JSON")
    arguments = parser.parse_args()
    name = Path(sys.argv[0]).stem
    out = arguments.out or ROOT / "bench" / "results" / f"{name}.json"
    measured = commit()  # now: the tree may move on while a long run measures this one
    result = measure(arguments.quick)
    for claim in result.claims:
        print(claim.line(), flush=True)
    record = {
        "claims": [asdict(claim) for claim in result.claims],
        "quick": arguments.quick,
        "command": f"python bench/{name}.py" + (" --quick" if arguments.quick else ""),
        "commit": measured,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        **result.raw,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(f"written to {out}")


def commit() -> str:
    """The commit that was measured, marked if the tree had changes."""
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return run.stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    """Processor, cores, memory and the versions that decide speed."""
    import peft
    import torch
    import transformers

    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":")[1].strip() for line in info.splitlines() if "model name" in line]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(pages / 2**30, 1),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }


def median_ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Median over the pairs of theirs / ours: above 1 when ours took less."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def read_rows(name: str, limit: int | None = None) -> list[dict[str, Any]]:
    """Rows of a dataset file under `FOREWORD_DATA`."""
    path = DATA / name
    if not path.exists():
        raise SystemExit(f"{path} is missing; set FOREWORD_DATA to the folder with the datasets")
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return rows[:limit]
