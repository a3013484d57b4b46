"""What `foreword serve` tells arrives: traces at an OTLP receiver, metrics in Debian's Prometheus, costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2

from tests.gateway.edge_server import until
from tests.gateway.served import NAME, Ground, Process, ask, by, serving
from tests.serving.prefix_samples import POLICY
from tests.telemetry.servers import Collector, collector, prometheus
from tests.telemetry.servers import until as until_it_says
from tests.telemetry.test_scrape import RULES

FIRST = {"authorise", "resolve", "fetch", "verify", "attach", "prefill", "decode"}
LATER = FIRST - {"fetch", "verify", "attach"}
PRICES = """
currency = "EUR"
[default]
prompt = 1000
completion = 2000
"""


def test_traces_metrics_and_costs_of_a_server_arrive(
    ground: Ground, model: Path, tmp_path: Path, prometheus_programs: Path
) -> None:
    made = ground.publish(1, "1.0.0")
    ground.publish(2, "2.0.0")
    ground.registry.release(NAME + "@1.0.0", policy=POLICY, by=by())
    (tmp_path / "prices.toml").write_text(PRICES)
    with (
        collector() as kept,
        serving(
            model, "--otlp", kept.url, "--set", f"telemetry.prices={tmp_path / 'prices.toml'}",
        ) as process,
    ):  # fmt: skip
        # Not released, so nothing has loaded it ahead; then it is there.
        assert ask(process, ground, NAME + "@2.0.0").status_code == 200
        assert ask(process, ground, NAME + "@2.0.0").status_code == 200
        assert ask(process, ground).json()["foreword"]["digest"] == str(made)
        assert ask(process, ground, "base").status_code == 200
        until(lambda: len(_roots(kept)) == 4, 10)
        _the_traces_tell_each_step(kept, str(made))
        _prometheus_has_counted(process, prometheus_programs)
        _what_was_used_has_a_price(process, ground)


def _roots(kept: Collector) -> list[Any]:
    roots = [span for span in kept.spans() if not span.parent_span_id]
    return sorted(roots, key=lambda span: span.start_time_unix_nano)


def _the_traces_tell_each_step(kept: Collector, released: str) -> None:
    first, second, third, bare = _roots(kept)
    assert (_steps(kept, first), _steps(kept, second)) == (FIRST, LATER)
    assert _attributes(first)["prefix.cache_tier"] == "fetch"
    assert _attributes(second)["prefix.cache_tier"] == "device"
    assert _attributes(third)["prefix.digest"] == released
    assert _steps(kept, bare) == LATER
    assert "prefix.cache_tier" not in _attributes(bare)
    for root in (first, second, third, bare):
        for span in _below(kept, root):
            assert root.start_time_unix_nano <= span.start_time_unix_nano
            assert span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= root.end_time_unix_nano + 1_000_000
    order = {span.name: span for span in _below(kept, first)}
    for before, after in (("fetch", "verify"), ("verify", "attach"), ("attach", "prefill")):
        # To the millisecond: each of them is told on the engine's clock, in steps.
        assert order[before].end_time_unix_nano <= order[after].start_time_unix_nano + 1_000_000


def _below(kept: Collector, root: Any) -> list[Any]:
    return [span for span in kept.spans() if span.parent_span_id == root.span_id]


def _steps(kept: Collector, root: Any) -> set[str]:
    return {span.name for span in _below(kept, root)}


def _attributes(span: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


def _prometheus_has_counted(process: Process, programs: Path) -> None:
    with prometheus(programs, int(process.admin_url.rsplit(":")[-1]), RULES) as query:

        def number(expression: str) -> float:
            (found,) = until_it_says(lambda: query(expression))
            return float(found["value"][1])

        assert number(f'prefix_requests_total{{prefix="{NAME}@2.0.0",outcome="ok"}}') == 2
        assert number('prefix_requests_total{prefix="base",outcome="ok"}') == 1
        assert number('prefix_load_attempts_total{result="ok",source="fetch"}') == 2
        assert number("prefix_warm") == 2
        assert number("prefix_tenants") == 1
        assert number("up") == 1


def _what_was_used_has_a_price(process: Process, ground: Ground) -> None:
    headers = {"Authorization": f"Bearer {ground.admin}"}

    def usage() -> list[dict[str, Any]]:
        said = httpx2.get(f"{process.admin_url}/admin/usage", headers=headers).json()
        used: list[dict[str, Any]] = said["usage"]
        return used

    until(lambda: sum(each["requests"] for each in usage()) == 4, 15)
    (base,) = (each for each in usage() if each["prefix"] == "base")
    # 1 EUR for each token of the prompt, 2 for each of the answer.
    assert base["currency"] == "EUR"
    assert float(base["cost"]) == base["prompt_tokens"] + 2 * base["completion_tokens"]
