"""The page: right numbers, closed labels, and a bound that no traffic can exceed."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from foreword.errors import ConfigError
from foreword.telemetry.hub import Telemetry
from foreword.telemetry.prometheus import PrometheusSink
from foreword.telemetry.records import (
    DIGEST_MISMATCH,
    Attached,
    Gauges,
    PrefixEvicted,
    ReleaseSeen,
    RequestRefused,
)
from tests.telemetry.made import DIGEST, NOW, SUPPORT, Kept, finished, loaded, version

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
GAUGES = Gauges(
    running=3, waiting=2, kv_bytes=25, kv_budget=100, prefix_bytes=4096, prefix_budget=8192,
    host_bytes=7, disk_bytes=9, resident=5, hits=10, misses=4, streams=1, releases=6, tenants=2,
    journal_age=0.5, running_prefixes=("acme/support@1.2.0", "acme/faq", "not a name\n"),
    waiting_prefixes=("acme/faq",), most_prefixes=64,
)  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def series(sink: PrometheusSink) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(sink.page().decode()):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def value(sink: PrometheusSink, name: str, /, **labels: str) -> float | None:
    return series(sink).get((name, frozenset(labels.items())))


def test_a_request_is_told_by_its_version() -> None:
    sink = PrometheusSink(clock=lambda: NOW)
    sink.take(finished())
    prefix = "acme/support@1.2.0"
    assert value(sink, "prefix_requests_total", prefix=prefix, outcome="ok") == 1
    assert value(sink, "prefix_responses_total", status="200") == 1
    assert value(sink, "prefix_tokens_total", prefix=prefix, kind="prompt") == 100
    assert value(sink, "prefix_tokens_total", prefix=prefix, kind="cached") == 60
    assert value(sink, "prefix_tokens_total", prefix=prefix, kind="completion") == 11
    assert value(sink, "prefix_request_ttft_seconds_sum", prefix=prefix) == 0.1
    assert value(sink, "prefix_request_ttft_seconds_bucket", prefix=prefix, le="0.1") == 1
    assert value(sink, "prefix_request_ttft_seconds_bucket", prefix=prefix, le="0.05") == 0
    assert value(sink, "prefix_request_tpot_seconds_sum", prefix=prefix) == pytest.approx(0.1)
    name = "prefix_request_duration_seconds_sum"
    assert value(sink, name, operation="chat", stream="true") == 1.1
    assert value(sink, "prefix_version_info", prefix=prefix, digest=DIGEST) == 1
    assert value(sink, "prefix_active") == value(sink, "prefix_tenants_active") == 1


def test_the_bare_model_is_base_and_no_prefix() -> None:
    sink = PrometheusSink(clock=lambda: NOW)
    sink.take(finished(attached=Attached()))
    assert value(sink, "prefix_requests_total", prefix="base", outcome="ok") == 1
    assert value(sink, "prefix_active") == 0
    assert not [key for key in series(sink) if key[0] == "prefix_version_info"]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "ok"), (429, "client_error"), (499, "cancelled"), (503, "server_error")],
)
def test_outcomes_say_whose_doing_it_was(status: int, outcome: str) -> None:
    sink = PrometheusSink(clock=lambda: NOW)
    sink.take(finished(status=status))
    prefix = "acme/support@1.2.0"
    assert value(sink, "prefix_requests_total", prefix=prefix, outcome=outcome) == 1


def test_an_error_has_no_time_per_token_and_no_first_token() -> None:
    sink = PrometheusSink(clock=lambda: NOW)
    sink.take(finished(status=503, first_token=None, completion_tokens=0))
    assert not [key for key in series(sink) if "ttft" in key[0] or "tpot" in key[0]]


def test_refusals_and_unbelieved_keys() -> None:
    sink = PrometheusSink()
    sink.take(RequestRefused(NOW, "expired", 401, "auth.expired"))
    sink.take(RequestRefused(NOW, "quota", 429, "quota.tokens", "acme"))
    assert value(sink, "prefix_auth_failures_total", reason="expired") == 1
    assert value(sink, "prefix_auth_failures_total", reason="key") == 0  # there before the first
    assert value(sink, "prefix_refusals_total", reason="quota") == 1
    assert value(sink, "prefix_responses_total", status="429") == 1


def test_loads_by_result_and_where_the_time_went() -> None:
    sink = PrometheusSink()
    sink.take(loaded())
    sink.take(loaded("prefix.does_not_fit_base"))
    sink.take(loaded("prefix.fetch_timeout"))
    sink.take(loaded("prefix.something_new", source="disk"))
    attempts = "prefix_load_attempts_total"
    assert value(sink, attempts, result="ok", source="fetch") == 1
    assert value(sink, attempts, result="other", source="disk") == 1
    assert value(sink, "prefix_compat_errors_total", reason="does_not_fit_base") == 1
    assert value(sink, "prefix_fetch_failures_total", reason="fetch_timeout") == 1
    assert value(sink, "prefix_cold_start_seconds_sum", phase="fetch") == 0.03
    assert value(sink, "prefix_cold_start_seconds_sum", phase="total") == pytest.approx(0.042)
    assert value(sink, "prefix_cold_start_seconds_count", phase="total") == 1  # of those that came


def test_what_else_is_counted() -> None:
    sink = PrometheusSink()
    sink.take(PrefixEvicted(NOW, DIGEST, "room"))
    sink.take(ReleaseSeen(NOW, "acme/support", 7, DIGEST, delay=0.3))
    sink.take(finished(fallback="prefix.fetch_failed", code=DIGEST_MISMATCH))
    assert value(sink, "prefix_evictions_total", reason="room") == 1
    assert value(sink, "prefix_release_delay_seconds_sum") == 0.3
    assert value(sink, "prefix_release_changes_total") == 1
    assert value(sink, "prefix_fallbacks_total", reason="fetch_failed") == 1
    assert value(sink, "prefix_digest_mismatch_total") == 1


def test_gauges_are_asked_for_at_each_scrape() -> None:
    sink = PrometheusSink(lambda: GAUGES)
    assert value(sink, "prefix_cache_bytes", tier="device") == 4096
    assert value(sink, "prefix_gpu_headroom_ratio", pool="kv") == 0.75
    assert value(sink, "prefix_gpu_headroom_ratio", pool="prefixes") == 0.5
    assert value(sink, "prefix_warm") == 5
    assert value(sink, "prefix_cache_requests_total", tier="device", result="miss") == 4
    assert value(sink, "prefix_journal_age_seconds") == 0.5
    assert not [key for key in series(sink) if key[0].startswith("vllm:")]


def test_the_inference_gateway_finds_what_vllm_would_tell_it() -> None:
    sink = PrometheusSink(lambda: GAUGES, inference_gateway=True, clock=lambda: NOW)
    assert value(sink, "vllm:num_requests_waiting", model_name="base") == 2
    assert value(sink, "vllm:kv_cache_usage_perc", model_name="base") == 0.25
    labels = {
        "max_lora": "64",
        "running_lora_adapters": "acme/faq,acme/support@1.2.0",
        "waiting_lora_adapters": "acme/faq",
    }
    assert value(sink, "vllm:lora_requests_info", **labels) == NOW


def test_a_gauge_that_fails_hides_no_counter() -> None:
    def broken() -> Gauges:
        raise RuntimeError

    sink = PrometheusSink(broken)
    sink.take(finished())
    assert value(sink, "prefix_gauges_up") == 0
    assert value(sink, "prefix_responses_total", status="200") == 1


def test_how_the_sinks_do_is_a_metric_too() -> None:
    class Raises(Kept):
        def take(self, record: object) -> None:
            raise OSError

    sink = PrometheusSink()
    telemetry = Telemetry([sink, Raises()])
    sink.watch(telemetry.states)
    telemetry.emit(finished())
    telemetry.close()
    assert value(sink, "prefix_telemetry_failures_total", sink="Raises") == 1
    assert value(sink, "prefix_telemetry_dropped_total", sink="PrometheusSink") == 0


def test_reuse_is_that_of_late() -> None:
    clock = Clock()
    sink = PrometheusSink(clock=clock)
    prefix = "acme/support@1.2.0"
    sink.take(finished(prompt_tokens=100, cached_tokens=0))
    clock.now += 600
    sink.take(finished(prompt_tokens=100, cached_tokens=100))
    assert value(sink, "prefix_kv_reuse_ratio", prefix=prefix) == pytest.approx(2 / 3)
    clock.now += 365 * 86_400  # weights are rescaled on the way
    sink.take(finished(prompt_tokens=100, cached_tokens=25))
    assert value(sink, "prefix_kv_reuse_ratio", prefix=prefix) == pytest.approx(0.25)


def test_more_versions_than_seats_are_other_and_a_late_favourite_gets_a_seat() -> None:
    clock = Clock()
    sink = PrometheusSink(top=3, clock=clock)
    for number in (1, 2, 3, 4):
        for _ in range(10 - number):
            sink.take(finished(attached=version(number)))
    seats = {dict(key[1])["prefix"] for key in series(sink) if key[0] == "prefix_requests_total"}
    assert seats == {"acme/support@1.1.0", "acme/support@1.2.0", "acme/support@1.3.0", "other"}
    clock.now += 601
    for _ in range(20):
        sink.take(finished(attached=version(4)))
    after = series(sink)
    assert not [key for key in after if ("prefix", "acme/support@1.3.0") in key[1]]
    seats = {dict(key[1])["prefix"] for key in after if key[0] == "prefix_requests_total"}
    assert seats == {"acme/support@1.1.0", "acme/support@1.2.0", "acme/support@1.4.0", "other"}
    assert value(sink, "prefix_responses_total", status="200") == 50  # totals are of all


def test_numbers_that_are_none_spoil_no_sum() -> None:
    sink = PrometheusSink(clock=lambda: NOW)
    for wrong in (math.nan, math.inf, -1.0):
        sink.take(finished(first_token=wrong, duration=wrong))
    sink.take(finished(prompt_tokens=-5, completion_tokens=-5))
    prefix = "acme/support@1.2.0"
    assert value(sink, "prefix_request_ttft_seconds_sum", prefix=prefix) == 0.1
    assert all(math.isfinite(each) for each in series(sink).values())


def test_the_bound_holds_when_every_label_has_every_value() -> None:
    """What no traffic can exceed, at the most prefixes that may be asked for."""
    sink = full()
    count = len(series(sink))
    assert 1700 < count <= 2000
    for number in range(100, 300):
        sink.take(finished(attached=version(number)))
    assert len(series(sink)) == count


@pytest.mark.parametrize("top", [0, 51])
def test_more_prefixes_than_the_bound_allows_are_refused(top: int) -> None:
    with pytest.raises(ConfigError, match="1 to 50"):
        PrometheusSink(top=top)


def test_a_scrape_during_traffic_is_one_moment() -> None:
    sink, stop = PrometheusSink(clock=lambda: NOW), threading.Event()

    def traffic() -> None:
        while not stop.is_set():
            sink.take(finished())

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        for _ in range(20):
            found = series(sink)
            prefix = frozenset({("prefix", "acme/support@1.2.0")})
            requests = found.get(
                ("prefix_requests_total", prefix | frozenset({("outcome", "ok")})), 0
            )
            assert found.get(("prefix_request_ttft_seconds_count", prefix), 0) == requests
            assert found["prefix_responses_total", frozenset({("status", "200")})] == requests
    finally:
        stop.set()
        thread.join()


def full() -> PrometheusSink:
    """A sink in which every series exists."""
    sink = PrometheusSink(lambda: GAUGES, inference_gateway=True, clock=lambda: NOW)
    kept = [Kept() for _ in range(8)]
    telemetry = Telemetry(kept)
    sink.watch(lambda: [replace(s, name=f"s{i}") for i, s in enumerate(telemetry.states())])
    telemetry.close()
    statuses = [200, 404, 499, 500, 400, 401, 403, 405, 408, 409, 413, 415, 422, 429, 431, 502, 503]
    everyone = [*map(version, range(50)), version(51), Attached()]
    for attached in everyone:
        for status in (*statuses, 504, 777):
            sink.take(finished(attached=attached, status=status, fallback="odd", stream=False))
    for operation in ("chat", "completion", "odd"):
        for stream in (True, False):
            sink.take(finished(operation=operation, stream=stream))
    for source in ("host", "disk", "fetch", "odd"):
        for code in ("", "odd", "prefix.no_room"):
            sink.take(loaded(code, source=source))
    sink.take(RequestRefused(NOW, "odd", 401, "odd"))  # type: ignore[arg-type]
    sink.take(PrefixEvicted(NOW, DIGEST, "odd"))  # type: ignore[arg-type]
    sink.take(ReleaseSeen(NOW, SUPPORT.name, 1, DIGEST, delay=1.0))
    return sink
