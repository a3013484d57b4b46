"""Debian's Prometheus scrapes the real page, evaluates the shipped rules, and gives our numbers back."""

from __future__ import annotations

import subprocess
from pathlib import Path

from foreword.telemetry.hub import Telemetry
from foreword.telemetry.prometheus import PrometheusSink
from foreword.telemetry.records import RequestRefused
from tests.reliability.report import ROOT
from tests.telemetry.made import NOW, finished, loaded
from tests.telemetry.servers import pages, prometheus, until
from tests.telemetry.test_prometheus import GAUGES, full

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"


def test_what_was_counted_can_be_asked_for(prometheus_programs: Path) -> None:
    sink = PrometheusSink(lambda: GAUGES, inference_gateway=True)
    telemetry = Telemetry([sink])
    sink.watch(telemetry.states)
    for _ in range(7):
        telemetry.emit(finished())
    telemetry.emit(loaded("prefix.probe_failed"))
    telemetry.emit(RequestRefused(NOW, "expired", 401, "auth.expired"))
    assert telemetry.flush()
    with (
        pages(sink.page, sink.content_type) as port,
        prometheus(prometheus_programs, port, RULES) as query,
    ):

        def number(expression: str) -> float:
            (found,) = until(lambda: query(expression))
            return float(found["value"][1])

        assert number("up") == 1
        assert number('prefix_requests_total{prefix="acme/support@1.2.0",outcome="ok"}') == 7
        assert number("sum by (kind) (prefix_tokens_total{kind='cached'})") == 420
        assert number('prefix_auth_failures_total{reason="expired"}') == 1
        assert number('prefix_compat_errors_total{reason="probe_failed"}') == 1
        assert number('prefix_gpu_headroom_ratio{pool="kv"}') == 0.75
        assert number('{__name__="vllm:num_requests_waiting"}') == 2
        at_95 = "histogram_quantile(0.95, sum by (le) (prefix_request_ttft_seconds_bucket))"
        assert 0.05 < number(at_95) <= 0.1
        joined = "prefix_requests_total * on (prefix) group_left (digest) prefix_version_info"
        assert number(joined) == 7
        assert number('prefix_slo_burn_rate{slo="availability",window="5m"} or vector(-1)') == -1
        telemetry.emit(finished(status=500))
        assert telemetry.flush()
        until(lambda: query("prefix_slo_burn_rate > 100"))  # a rule saw the failure


def test_prometheus_finds_nothing_to_say_about_a_page_with_every_series(
    prometheus_programs: Path,
) -> None:
    page = b"".join(  # names with a colon are meant for rules; these are vLLM's, for its readers
        line for line in full().page().splitlines(keepends=True) if b"vllm:" not in line
    )
    checked = subprocess.run(
        [prometheus_programs / "promtool", "check", "metrics"], input=page, capture_output=True
    )
    assert (checked.returncode, checked.stderr) == (0, b"")
