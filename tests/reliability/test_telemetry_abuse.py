"""R23: whatever clients put into ids, names and headers, metrics stay few and log lines stay lines."""

from __future__ import annotations

import gc
import json
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from prometheus_client.parser import text_string_to_metric_families

from foreword.telemetry.hub import Telemetry
from foreword.telemetry.json_log import MAX_LINE, JsonLog
from foreword.telemetry.metrics.families import Counts
from foreword.telemetry.otel import OtelSink
from foreword.telemetry.prometheus import PrometheusSink
from foreword.telemetry.records import (
    Attached,
    Gauges,
    PrefixEvicted,
    PrefixLoaded,
    Record,
    ReleaseSeen,
    RequestFinished,
    RequestRefused,
    Span,
)
from foreword.telemetry.usage import UsageSink, read_usage
from tests.reliability.report import LONG, Goals

pytestmark = pytest.mark.reliability("R23")

RECORDS = 100_000 if LONG else 8_000
MOST_SERIES, MOST_BYTES = 2_000, 8 << 20
CONTROL = bytes([*range(0x20), *range(0x7F, 0x100)])
NASTY = (
    "\n", "\r\n", "\x00", "\x1b[2J\x1b]0;title\x07", "\x7f", "\x9b31m", "\u202e\u2066", "\u2028",
    "\ud800", "\U0001f600" * 700, "a" * 20_000, '"', "\\", '"} 1\nprefix_forged 9\n{"',
    "\n# TYPE prefix_forged counter", "${jndi:ldap://x}", "{{7*7}}", "%s%n", "'; DROP TABLE--",
    "<script>", "../../etc/passwd", "Mozilla/5.0 (\n)", "GET\tPOST", "prefix_requests_total",
)  # fmt: skip
"""Pieces of what may come as an id, a model, a user agent or a method."""
FIELDS = {
    RequestFinished: {
        "time", "id", "operation", "tenant", "key_id", "attached", "base", "status", "code",
        "fallback", "stream", "prompt_tokens", "cached_tokens", "completion_tokens", "first_token",
        "duration", "spans", "traceparent", "cache_tier",
    },
    RequestRefused: {"time", "reason", "status", "code", "tenant"},
    PrefixLoaded: {"time", "digest", "name", "source", "code", "bytes", "phases"},
    PrefixEvicted: {"time", "digest", "reason"},
    ReleaseSeen: {"time", "name", "seq", "stable", "canary", "share", "delay"},
    Attached: {"name", "version", "digest", "length", "arm"},
    Span: {"name", "start", "end"},
}  # fmt: skip
"""All that a record can hold: no prompt, no answer, no key, no header but the trace context."""


def hostile(count: int) -> Iterator[Record]:
    """Records in which every text is a client's, and names that could exist come a million strong."""
    rng = random.Random(23)

    def text() -> Any:
        return "".join(rng.choices(NASTY, k=rng.randint(1, 3))) + str(rng.getrandbits(64))

    def attached() -> Attached:
        if rng.random() < 0.5:
            return Attached(text(), text(), text(), rng.randint(0, 99), text())
        name = f"acme/p{int(rng.paretovariate(0.6))}"  # few are used a lot, most once
        return Attached(name, "1.0.0", f"sha256:{rng.getrandbits(256):064x}")

    for number in range(count):
        now = 1.79e9 + number / 100  # 16 minutes: seats of names change hands as well
        kind = rng.random()
        if kind < 0.7:
            yield RequestFinished(
                now, text(), text(), text(), text(), attached(), text(),
                rng.choice([200, 404, 499, 503, 777]), text(),
                text(), rng.random() < 0.5, rng.randint(-9, 10**12), rng.randint(-9, 10**12),
                rng.randint(-9, 10**12), rng.choice([None, -1.0, float("nan"), 1e300, 0.1, 0.2]),
                rng.choice([float("inf"), 0.0, 1.5]), (Span(text(), now, now),), text(), text(),
            )  # fmt: skip
        elif kind < 0.8:
            yield RequestRefused(now, text(), rng.randint(0, 999), text(), text())
        elif kind < 0.9:
            yield PrefixLoaded(
                now, text(), text(), text(), rng.choice(["", text()]), 1, {text(): 1}
            )
        elif kind < 0.95:
            yield PrefixEvicted(now, text(), text())
        else:
            yield ReleaseSeen(now, text(), 1, text(), text(), 0.5, rng.choice([1.0, float("nan")]))


def names_of(page: bytes) -> tuple[set[str], int]:
    families = list(text_string_to_metric_families(page.decode()))
    return {family.name for family in families}, sum(len(family.samples) for family in families)


class Spans:
    """Counts what would be sent, and what of it has no prefix."""

    def __init__(self) -> None:
        self.count = self.nameless = 0

    def export(self, spans: Any) -> SpanExportResult:
        self.count += len(spans)
        self.nameless += sum(not (span.attributes or {}).get("prefix.id") for span in spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing."""


def metrics() -> PrometheusSink:
    now = [1.79e9]

    def clock() -> float:
        now[0] += 0.01
        return now[0]

    gauges = Gauges(running_prefixes=NASTY, waiting_prefixes=NASTY)
    return PrometheusSink(lambda: gauges, inference_gateway=True, clock=clock)


def test_hostile_records_make_few_series_and_only_our_own(goals: Goals) -> None:
    known, _ = names_of(metrics().page())
    tracemalloc.start()
    try:
        sink, most = metrics(), 0
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for number, record in enumerate(hostile(RECORDS)):
            sink.take(record)
            if number % (RECORDS // 20) == 0:
                most = max(most, names_of(sink.page())[1])
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    found, series = names_of(sink.page())
    most = max(most, series)
    held = (after - before) / 2**20
    goals.goal("at most 2,000 series", value=most, passed=most <= MOST_SERIES, count=RECORDS)
    goals.goal(
        "the registry holds at most 8 MiB, in MiB", value=held, passed=after - before <= MOST_BYTES,
        count=RECORDS,
    )  # fmt: skip
    goals.goal(
        "metrics that are not ours", value=len(found - known), passed=found == known, count=RECORDS
    )


def test_hostile_records_make_lines_that_parse(goals: Goals, tmp_path: Path) -> None:
    spans, path = Spans(), tmp_path / "log"
    with path.open("w", encoding="utf-8", newline="") as stream:
        sinks = [JsonLog(stream), OtelSink(spans), UsageSink(tmp_path / "usage"), metrics()]
        telemetry = Telemetry(sinks)
        for number, record in enumerate(hostile(RECORDS)):
            telemetry.emit(record)
            if number % 4000 == 0:
                assert telemetry.flush(60)
        assert telemetry.close(60)
    lines = bad = longest = raw = finished = 0
    with path.open("rb") as log:
        for line in log:
            lines += 1
            bad += not _parses(line)
            longest = max(longest, len(line))
            raw += len(line) - 1 - len(line[:-1].translate(None, CONTROL))
            finished += b'"event":"request.finished"' in line
    goals.goal("lines that do not parse", value=bad, passed=bad == 0, count=lines)
    goals.goal("one line a record", value=lines, passed=lines == RECORDS, count=RECORDS)
    goals.goal("no line is over 8 KiB", value=longest, passed=longest <= MAX_LINE, count=lines)
    goals.goal("raw control bytes in the log", value=raw, passed=raw == 0, count=lines)
    failures = sum(state.failures + state.dropped for state in telemetry.states())
    goals.goal(
        "records that a sink failed on or lost", value=failures, passed=failures == 0, count=RECORDS
    )
    goals.goal(
        "spans without prefix.id", value=spans.nameless, passed=spans.nameless == 0 < spans.count,
        count=spans.count,
    )  # fmt: skip
    usage = read_usage(tmp_path / "usage")
    counted = sum(counts.requests for counts in usage.rows.values())
    goals.goal(
        "requests that usage lost", value=finished - counted,
        passed=counted == finished and not usage.damaged, count=finished,
    )  # fmt: skip


def test_no_record_has_room_for_a_prompt_or_a_key(goals: Goals) -> None:
    """A field that is added to a record has to be added to the list here, and thought about."""
    kinds = {*get_args(Record), Attached, Span}
    unlisted = [
        f"{kind.__name__}.{field.name}"
        for kind in kinds
        for field in fields(kind)
        if field.name not in FIELDS[kind]
    ]
    goals.goal(
        "fields of records that are not on the list", value=", ".join(unlisted) or "0",
        passed=not unlisted, count=sum(len(fields(kind)) for kind in kinds),
    )  # fmt: skip


def test_the_checks_find_what_a_careless_sink_would_do(goals: Goals) -> None:
    """Ids as labels, and lines put together by hand."""
    careless = Counts("requests", "By id.", {"id": frozenset()})
    lines = []
    for record in hostile(5_000):
        if isinstance(record, RequestFinished):
            careless.add(record.id)
            lines += f'{{"id": "{record.id}"}}'.encode(errors="replace").split(b"\n")
    series = len(careless.family().samples)
    broken = sum(not _parses(line) for line in lines)
    goals.goal(
        "a careless sink is found out: its series and its broken lines",
        value=f"{series}, {broken}",
        passed=series > MOST_SERIES and broken > 0,
        count=5_000,
    )


def _parses(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
