"""Every panel of the shipped dashboards shows something, and every metric is in one (Debian's Prometheus)."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.report import ROOT
from tests.telemetry.servers import pages, prometheus, until
from tests.telemetry.test_prometheus import full
from tests.telemetry.test_scrape import RULES

DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
WIDTH = 24
"""Columns of Grafana's grid."""
VARIABLES = {"$instance": ".*", "$prefix": ".*", "$__rate_interval": "10s", "$__range": "1m"}
NOT_DRAWN = {
    "prefix_kv_bytes",  # the headroom says how much of it may still come
    "prefix_tenants",  # of those with access; the ones that ask are drawn
}


def dashboard(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def panels() -> list[Any]:
    return [
        pytest.param(panel, id=f"{path.stem}: {panel['title']}")
        for path in DASHBOARDS
        for panel in dashboard(path)["panels"]
        if panel["type"] != "row"
    ]


def expressions(part: object) -> set[str]:
    """Everything a dashboard, or a part of one, asks Prometheus."""
    if isinstance(part, dict):
        own = {part["expr"]} if "expr" in part else set()
        return own.union(*map(expressions, part.values()))
    return set().union(*map(expressions, part)) if isinstance(part, list) else set()


def filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def metrics(expression: str) -> set[str]:
    found = re.findall(r"\bprefix_\w+", re.sub(r'"[^"]*"', "", expression))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in found}


def told() -> set[str]:
    lines = full().page().decode().splitlines()
    return {line.split()[2] for line in lines if line.startswith("# TYPE prefix_")}


def test_every_expression_finds_something(prometheus_programs: Path) -> None:
    sink = full()
    asked = set().union(*(expressions(dashboard(path)) for path in DASHBOARDS))
    with (
        pages(sink.page, sink.content_type) as port,
        prometheus(prometheus_programs, port, RULES) as query,
    ):
        quiet = {each for each in asked if not each.endswith("> 0")}
        for each in sorted(quiet):
            assert until(lambda each=each: query(filled(each))), each
        for each in asked - quiet:  # nothing has changed, so there is nothing to find
            assert query(filled(each.removesuffix("> 0"))), each


def test_every_metric_is_in_a_dashboard() -> None:
    asked = set().union(
        *(metrics(e) for path in DASHBOARDS for e in expressions(dashboard(path)))
    ) - {"prefix_slo_burn_rate"}
    assert asked == told() - NOT_DRAWN


@pytest.mark.parametrize("panel", panels())
def test_a_panel_says_what_it_shows_and_asks_through_the_variables(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["targets"]
    for target in panel["targets"]:
        assert "$instance" in target["expr"] or "prefix_slo_burn_rate" in target["expr"]
        names = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert names <= set(re.findall(r"\w+", target["expr"])), "a legend names what is grouped by"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_lie_side_by_side(path: Path) -> None:
    placed = dashboard(path)["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)
    cells = [
        (x, y)
        for panel in placed
        for grid in [panel["gridPos"]]
        for x, y in itertools.product(
            range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])
        )
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < WIDTH


def test_dashboards_lead_to_each_other() -> None:
    boards = [dashboard(path) for path in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len(boards) == 2
    assert all("foreword" in board["tags"] for board in boards)
    assert all(board["links"][0]["tags"] == ["foreword"] for board in boards)
