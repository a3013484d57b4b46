"""From readings of `/metrics` and `/readyz` to the figures that an operator looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foreword.client.top.page import Page, between, grown, quantile

BAD = ("client_error", "server_error")


@dataclass(frozen=True)
class Spread:
    """Seconds; None: nothing was measured."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True)
class PrefixLine:
    """One version, `base`, or `other` for all without series of their own. Rates are per second."""

    name: str
    requests: float
    errors: float
    tokens: float
    first_token: Spread
    per_token: Spread
    reused: float | None
    """Share of prompt tokens that were reused, of late."""


@dataclass(frozen=True)
class Look:
    """Rates are per second, over `seconds`. What is None is not told by this server."""

    ready: bool
    problems: tuple[str, ...]
    """Parts that are not well, and their codes."""
    seconds: float
    requests: float
    refused: float
    """Turned away before they had a route."""
    failed: float
    """With a status of 500 or more."""
    tokens: float
    """Of answers."""
    duration: Spread
    first_token: Spread
    per_token: Spread
    running: float | None
    waiting: float | None
    streams: float | None
    resident: float | None
    releases: float | None
    hit_rate: float | None
    """Share of requests whose prefix was resident."""
    device_bytes: float | None
    kv_used: float | None
    """Share of the budget for keys and values."""
    journal_age: float | None
    wrong_digests: float
    """Answers that were thrown away, since the server began; anything but 0 is a bug."""
    prefixes: tuple[PrefixLine, ...]


def look(ready: Mapping[str, Any], far: Page, before: Page, now: Page) -> Look:
    """`before` and `now` give the rates, `far` and `now` the latencies and the hit rate."""
    seconds = max(now.when - before.when, 1e-9)

    def rate(name: str, **labels: str) -> float:
        return grown(before, now, name, **labels) / seconds

    free = now.sum("prefix_gpu_headroom_ratio", pool="kv")
    return Look(
        ready=ready.get("ready") is True,
        problems=_problems(ready),
        seconds=seconds,
        requests=rate("prefix_responses_total"),
        refused=rate("prefix_refusals_total"),
        failed=sum(rate("prefix_responses_total", status=each) for each in _failures(now)),
        tokens=rate("prefix_tokens_total", kind="completion"),
        duration=_spread(far, now, "prefix_request_duration_seconds"),
        first_token=_spread(far, now, "prefix_request_ttft_seconds"),
        per_token=_spread(far, now, "prefix_request_tpot_seconds"),
        running=now.sum("prefix_requests_running"),
        waiting=now.sum("prefix_requests_waiting"),
        streams=now.sum("prefix_streams"),
        resident=now.sum("prefix_warm"),
        releases=now.sum("prefix_releases"),
        hit_rate=_hit_rate(far, now),
        device_bytes=now.sum("prefix_cache_bytes", tier="device"),
        kv_used=None if free is None else 1.0 - free,
        journal_age=now.sum("prefix_journal_age_seconds"),
        wrong_digests=now.sum("prefix_digest_mismatch_total") or 0.0,
        prefixes=_lines(far, before, now, seconds),
    )


def _lines(far: Page, before: Page, now: Page, seconds: float) -> tuple[PrefixLine, ...]:
    """The busiest first, then by what was ever asked."""
    names = now.values("prefix_requests_total", "prefix")
    ever = {name: now.sum("prefix_requests_total", prefix=name) or 0.0 for name in names}
    lines = [_line(name, far, before, now, seconds) for name in names]
    return tuple(sorted(lines, key=lambda line: (-line.requests, -ever[line.name], line.name)))


def _line(name: str, far: Page, before: Page, now: Page, seconds: float) -> PrefixLine:
    def rate(series: str, **labels: str) -> float:
        return grown(before, now, series, prefix=name, **labels) / seconds

    return PrefixLine(
        name=name,
        requests=rate("prefix_requests_total"),
        errors=sum(rate("prefix_requests_total", outcome=each) for each in BAD),
        tokens=rate("prefix_tokens_total", kind="completion"),
        first_token=_spread(far, now, "prefix_request_ttft_seconds", prefix=name),
        per_token=_spread(far, now, "prefix_request_tpot_seconds", prefix=name),
        reused=now.sum("prefix_kv_reuse_ratio", prefix=name),
    )


def _spread(far: Page, now: Page, name: str, **labels: str) -> Spread:
    came = between(far.buckets(name, **labels), now.buckets(name, **labels))
    return Spread(quantile(0.5, came), quantile(0.99, came))


def _hit_rate(far: Page, now: Page) -> float | None:
    hits = grown(far, now, "prefix_cache_requests_total", result="hit")
    misses = grown(far, now, "prefix_cache_requests_total", result="miss")
    return hits / (hits + misses) if hits + misses else None


def _failures(now: Page) -> set[str]:
    statuses = now.values("prefix_responses_total", "status")
    return {status for status in statuses if status.startswith("5")}


def _problems(ready: Mapping[str, Any]) -> tuple[str, ...]:
    parts = ready.get("parts")
    unwell = {
        str(name): str(part.get("code") or part.get("detail") or "not well")
        for name, part in (parts.items() if isinstance(parts, Mapping) else ())
        if isinstance(part, Mapping) and part.get("well") is not True
    }
    draining = ["stopping"] if ready.get("draining") else []
    return (*draining, *(f"{name}: {code}" for name, code in unwell.items()))
