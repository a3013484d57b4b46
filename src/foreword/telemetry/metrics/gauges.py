"""What holds at the moment of a scrape, as metric families."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from foreword.telemetry.metrics.closed import BASE, name_list
from foreword.telemetry.records import Gauges


def gauge_families(now: Gauges) -> Iterator[Metric]:
    """The gauges, and the counters that the engine keeps itself."""
    yield _one("prefix_requests_running", "Answers being decoded.", now.running)
    yield _one("prefix_requests_waiting", "Requests that wait for room.", now.waiting)
    yield _one("prefix_streams", "Open streams.", now.streams)
    yield _one("prefix_kv_bytes", "Keys and values of running requests.", now.kv_bytes)
    yield _labelled(
        "prefix_cache_bytes", "Bytes of prefixes.", "tier",
        {"device": now.prefix_bytes, "host": now.host_bytes, "disk": now.disk_bytes},
    )  # fmt: skip
    yield _labelled(
        "prefix_gpu_headroom_ratio",
        "Free share of a memory budget of the device, which may be a CPU.", "pool",
        {"kv": _free(now.kv_bytes, now.kv_budget),
         "prefixes": _free(now.prefix_bytes, now.prefix_budget)},
    )  # fmt: skip
    yield _one("prefix_warm", "Prefixes that can be used at once.", now.resident)
    yield _one("prefix_releases", "Names with a release.", now.releases)
    yield _one("prefix_tenants", "Tenants with access.", now.tenants)
    yield _one("prefix_journal_age_seconds", "Since the journal was last read.", now.journal_age)
    if now.hits is not None and now.misses is not None:
        yield _cache_requests(now.hits, now.misses)


def gateway_families(now: Gauges, time: float) -> Iterator[Metric]:
    """What the Kubernetes inference gateway reads, with vLLM's names and meaning.

    The gateway was made for LoRA adapters; a prefix stands in their place, by the name that a request
    may write as `model`. The newest `lora_requests_info` is the one with the largest value, a time.
    """
    for name, meaning, value in (
        ("vllm:num_requests_running", "Answers being decoded.", now.running),
        ("vllm:num_requests_waiting", "Requests that wait for room.", now.waiting),
        ("vllm:kv_cache_usage_perc", "Used share of the KV budget, 1 is full.",
         1.0 - _free(now.kv_bytes, now.kv_budget)),
    ):  # fmt: skip
        yield _labelled(name, meaning, "model_name", {BASE: value})
    info = GaugeMetricFamily(
        "vllm:lora_requests_info",
        "Prefixes of running and waiting requests; the value is Unix time.",
        labels=["max_lora", "running_lora_adapters", "waiting_lora_adapters"],
    )
    running, waiting = name_list(now.running_prefixes), name_list(now.waiting_prefixes)
    info.add_metric([str(now.most_prefixes), running, waiting], time)
    yield info


def _cache_requests(hits: int, misses: int) -> Metric:
    family = CounterMetricFamily(
        "prefix_cache_requests", "Whether a prefix was there when a request wanted it.",
        labels=["tier", "result"],
    )  # fmt: skip
    family.add_metric(["device", "hit"], hits)
    family.add_metric(["device", "miss"], misses)
    return family


def _free(used: int, budget: int) -> float:
    """Of a budget of 0 nothing is used and all is free."""
    return 1.0 - used / budget if budget else 1.0


def _one(name: str, help: str, value: float | None) -> Metric:
    return GaugeMetricFamily(name, help, value=value)


def _labelled(name: str, help: str, label: str, values: Mapping[str, float | None]) -> Metric:
    """What is None has no series: 0 would be a claim."""
    family = GaugeMetricFamily(name, help, labels=[label])
    for key, value in values.items():
        if value is not None:
            family.add_metric([key], value)
    return family
