"""docs/telemetry.md lists every metric, attribute, log field and alert, and nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from foreword.errors import UsageError
from foreword.telemetry import semconv
from foreword.telemetry.json_log import record_line
from foreword.telemetry.records import PrefixEvicted, ReleaseSeen, RequestRefused
from tests.reliability.report import ROOT
from tests.telemetry.made import DIGEST, NOW, finished, loaded
from tests.telemetry.test_json_log import formatted
from tests.telemetry.test_prometheus import full
from tests.telemetry.test_scrape import RULES

DOCUMENT = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")


def first_column(heading: str) -> set[str]:
    """Names in the first column of the tables below a heading."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_metric_with_its_labels() -> None:
    told: dict[str, set[str]] = {}
    for line in full().page().decode().splitlines():
        if line.startswith("#"):
            continue
        name, _, labels = line.rpartition(" ")[0].partition("{")
        kept = set(re.findall(r'([a-z_]+)="', labels)) - {"le"}
        told.setdefault(re.sub(r"(?<=_seconds)_(bucket|sum|count)$", "", name), set()).update(kept)
    assert first_column("Metrics") == set(told)
    for row in re.findall(r"^\| `([a-z_:0-9]+)` \| ([a-z_, ]*) ?\|", DOCUMENT, re.M):
        if row[0] in told:
            assert {each for each in row[1].replace(" ", "").split(",") if each} == told[row[0]]


def test_every_attribute() -> None:
    names = {v for k, v in vars(semconv).items() if k.isupper() and k != "SCHEMA"}
    assert first_column("Traces") == names


def test_every_log_field() -> None:
    lines: list[dict[str, Any]] = [
        json.loads(record_line(record))
        for record in (
            finished(), loaded(), PrefixEvicted(NOW, DIGEST, "room"),
            ReleaseSeen(NOW, "a/b", 1, DIGEST), RequestRefused(NOW, "key", 401, "auth.unknown"),
        )
    ]  # fmt: skip
    lines.append(formatted("failed", error=UsageError("why")))
    assert first_column("Log lines") == {field for line in lines for field in line}


def test_every_alert() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert first_column("Rules and alerts") == alerts
