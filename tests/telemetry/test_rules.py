"""Every alert that is shipped fires when it should, and none does on a quiet day (promtool)."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from foreword.telemetry.prometheus import PrometheusSink
from tests.telemetry.test_scrape import RULES

HOURS, DAYS = 60, 24 * 60
"""In minutes, the distance of two samples."""


@dataclass(frozen=True)
class Case:
    """After `minutes`, exactly `firing` of the alerts fire."""

    why: str
    minutes: int
    series: dict[str, str]
    firing: tuple[str, ...] = ()


def steady(start: float, step: float, minutes: int) -> str:
    return f"{start}+{step}x{minutes}"


QUIET = {
    'prefix_responses_total{instance="a",status="200"}': 100.0,
    'prefix_responses_total{instance="a",status="500"}': 0.0,
    'prefix_request_ttft_seconds_bucket{instance="a",prefix="base",le="2.5"}': 100.0,
    'prefix_request_ttft_seconds_count{instance="a",prefix="base"}': 100.0,
    'prefix_load_attempts_total{instance="a",result="ok",source="fetch"}': 20.0,
    'prefix_load_attempts_total{instance="a",result="fetch_failed",source="fetch"}': 0.0,
    'prefix_load_attempts_total{instance="a",result="no_room",source="fetch"}': 0.0,
    'prefix_compat_errors_total{instance="a",reason="probe_failed"}': 0.0,
    'prefix_digest_mismatch_total{instance="a"}': 0.0,
    'prefix_auth_failures_total{instance="a",reason="key"}': 0.1,
    'prefix_fallbacks_total{instance="a",reason="no_room"}': 0.1,
    'prefix_telemetry_dropped_total{instance="a",sink="OtelSink"}': 0.0,
    'prefix_telemetry_failures_total{instance="a",sink="OtelSink"}': 0.0,
}
"""What each counter grows by in a minute."""
LEVELS = {
    'prefix_gpu_headroom_ratio{instance="a",pool="kv"}': 0.5,
    'prefix_requests_waiting{instance="a"}': 0.0,
    'prefix_journal_age_seconds{instance="a"}': 0.5,
    'prefix_gauges_up{instance="a"}': 1.0,
}


def day(why: str, minutes: int, firing: str, **changes: float) -> Case:
    """A quiet day but for the metrics whose names begin with a word of `changes`."""
    series = {}
    for values, step in ((QUIET, True), (LEVELS, False)):
        for name, usual in values.items():
            found = [v for part, v in changes.items() if part in name]
            value = found[0] if found else usual
            series[name] = steady(0, value, minutes) if step else steady(value, 0, minutes)
    return Case(why, minutes, series, tuple(firing.split()))


CASES = [
    day("a quiet day", 2 * HOURS, ""),
    day(
        "2 % of answers fail for an hour", 90, "PrefixBudgetBurnsFast PrefixBudgetBurns"
        " PrefixBudgetBurnsSlowly", **{'"500"': 2.0},
    ),
    day("1 % fail for six hours", 7 * HOURS,
        "PrefixBudgetBurns PrefixBudgetBurnsSlowly", **{'"500"': 1.0}),
    day("0.2 % fail for three days", 3 * DAYS + 10, "PrefixBudgetBurnsSlowly", **{'"500"': 0.2}),
    day("a fifth of first tokens are late", 90, "PrefixBudgetBurnsFast PrefixBudgetBurns"
        " PrefixBudgetBurnsSlowly", ttft_seconds_bucket=80.0),
    day("a tenth of loads fail", 30, "PrefixLoadSuccessLow", **{'"fetch_failed"': 2.0}),
    day("a sixth of loads fail, but there are few", 30, "", **{'"fetch_failed"': 0.02, '"ok"': 0.1}),
    day("prefixes have no room", 30, "PrefixOutOfMemory", **{'"no_room",source': 0.01}),
    day("the KV budget is used up and requests wait", 30, "PrefixKvHeadroomLow",
        headroom=0.05, requests_waiting=3.0),
    day("the KV budget is used up and nobody waits", 30, "", headroom=0.05),
    day("a prefix does not belong to the base", 30, "PrefixIncompatible", compat=0.2),
    day("a wrong digest was attached", 30, "PrefixDigestMismatch", mismatch=0.2),
    day("somebody guesses keys", 30, "PrefixAuthFailures", auth_failures=10.0),
    day("the journal cannot be read", 30, "PrefixJournalStale", journal_age=300.0),
    day("others stand in for a twentieth of answers", 30, "PrefixFallbacks", fallbacks=5.0),
    day("a collector is away", 30, "PrefixTelemetryLost", telemetry_dropped=50.0),
    day("a disk is full", 30, "PrefixTelemetryLost", telemetry_failures=50.0),
    day("the engine does not say how it is", 30, "PrefixGaugesMissing", gauges_up=0.0),
]  # fmt: skip


def promtool_case(case: Case) -> dict[str, Any]:
    firing = [
        {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(set(case.firing))
    ]
    return {
        "name": case.why,
        "interval": "1m",
        "input_series": [{"series": k, "values": v} for k, v in case.series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (group by (alertname) (ALERTS{alertstate="firing"}))',
                "eval_time": f"{case.minutes}m",
                "exp_samples": firing,
            }
        ],
    }


def run(programs: Path, *words: str | Path) -> str:
    done = subprocess.run([programs / "promtool", *words], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_the_rules_are_valid(prometheus_programs: Path) -> None:
    assert "SUCCESS" in run(prometheus_programs, "check", "rules", RULES)


def test_each_alert_fires_when_it_should_and_only_then(
    prometheus_programs: Path, tmp_path: Path
) -> None:
    tests = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "5m",
        "tests": [promtool_case(case) for case in CASES],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(tests))
    run(prometheus_programs, "test", "rules", tmp_path / "test.yml")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    fired = {name for case in CASES for name in case.firing}
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


@pytest.mark.parametrize("rule", rules(), ids=lambda r: r.get("alert") or str(r["labels"]))
def test_rules_ask_only_for_metrics_that_are_told(rule: dict[str, Any]) -> None:
    from tests.telemetry.test_prometheus import full

    told = {"prefix_slo_burn_rate"} | {
        line.partition("{")[0].partition(" ")[0]
        for line in full().page().decode().splitlines()
        if not line.startswith("#")
    }
    asked = {word for word in _words(rule["expr"]) if word.startswith("prefix_")}
    assert asked
    assert asked <= told


def _words(expression: str) -> set[str]:
    kept = "".join(c if c.isalnum() or c == "_" else " " for c in expression)
    return set(kept.split())


def test_a_page_names_itself_in_the_form_prometheus_asks_for() -> None:
    assert PrometheusSink.content_type.startswith("text/plain")
