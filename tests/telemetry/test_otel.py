"""Spans as a real receiver parses them from OTLP; none is without its prefix."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from foreword.telemetry import semconv
from foreword.telemetry.hub import Telemetry
from foreword.telemetry.otel import OtelSink, otlp_exporter
from foreword.telemetry.records import Attached, RequestRefused, Span
from tests.telemetry.made import BASE, DIGEST, NOW, STEPS, TRACEPARENT, Kept, finished
from tests.telemetry.servers import Collector, collector


class Memory:
    """An exporter that keeps spans, and can fail."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.spans: list[ReadableSpan] = []
        self.result = result

    def export(self, spans: Any) -> SpanExportResult:
        self.spans += spans
        return self.result

    def shutdown(self) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Collector]:
    with collector() as running:
        yield running


def attributes(span: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
    }


def test_a_collector_receives_the_request_and_its_steps(receiver: Collector) -> None:
    telemetry = Telemetry([OtelSink(otlp_exporter(receiver.url))])
    telemetry.emit(finished(fallback="prefix.fetch_failed", cache_tier="disk"))
    assert telemetry.close()
    assert telemetry.states()[0].failures == 0
    spans = {span.name: span for span in receiver.spans()}
    root = spans.pop("chat acme/support")
    assert tuple(spans) == STEPS
    assert attributes(root) == {
        "prefix.id": "acme/support",
        "prefix.version": "1.2.0",
        "prefix.digest": DIGEST,
        "prefix.base_digest": BASE,
        "prefix.length": 16,
        "prefix.tenant": "acme",
        "prefix.cache_tier": "disk",
        "prefix.experiment_arm": "stable",
        "prefix.fallback_reason": "prefix.fetch_failed",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "foreword",
        "gen_ai.response.model": "acme/support@1.2.0",
        "gen_ai.response.id": "req-1",
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.output_tokens": 11,
        "gen_ai.response.time_to_first_chunk": 0.1,
        "http.response.status_code": 200,
    }
    (resource,) = receiver.requests[0].resource_spans
    assert attributes(resource.resource)["service.name"] == "foreword"
    assert resource.scope_spans[0].schema_url == semconv.SCHEMA


def test_spans_have_the_times_and_the_parents_of_the_record(receiver: Collector) -> None:
    sink = OtelSink(otlp_exporter(receiver.url))
    sink.take(finished())
    sink.close()
    spans = {span.name: span for span in receiver.spans()}
    root = spans.pop("chat acme/support")
    assert {span.trace_id.hex() for span in [root, *spans.values()]} == {"1" * 32}
    assert root.parent_span_id.hex() == "2" * 16
    assert {span.parent_span_id for span in spans.values()} == {root.span_id}
    assert (root.end_time_unix_nano - root.start_time_unix_nano) == pytest.approx(1.1e9, abs=1000)
    assert root.end_time_unix_nano == pytest.approx(NOW * 1e9)
    decode = spans["decode"]
    assert decode.start_time_unix_nano == pytest.approx((NOW - 0.5) * 1e9, abs=1000)
    assert all(attributes(span)["prefix.digest"] == DIGEST for span in spans.values())


def test_a_server_error_marks_its_span_and_names_its_code() -> None:
    memory = Memory()
    sink = OtelSink(memory)
    sink.take(finished(status=503, code="prefix.no_room"))
    sink.take(finished(status=404, code="model.unknown"))
    sink.rest()
    roots = [span for span in memory.spans if span.name.startswith("chat")]
    assert [span.status.is_ok for span in roots] == [False, True]
    assert [(span.attributes or {})["error.type"] for span in roots] == [
        "prefix.no_room",
        "model.unknown",
    ]


@given(
    name=st.text(max_size=300),
    text=st.text(st.characters(categories=["Cc", "Cs", "L", "So"]), max_size=400),
    steps=st.lists(st.text(max_size=50), max_size=40),
)
@settings(max_examples=50)
def test_no_span_is_without_its_prefix_whatever_the_record_says(
    name: str, text: str, steps: list[str]
) -> None:
    memory = Memory()
    sink = OtelSink(memory)
    spans = tuple(Span(step, NOW, NOW) for step in steps)
    sink.take(
        finished(attached=Attached(name), tenant=text, id=text, traceparent=text, spans=spans)
    )
    sink.rest()
    assert len(memory.spans) == 1 + min(len(steps), 32)
    for span in memory.spans:
        found = span.attributes or {}
        assert found["prefix.id"]
        assert all(len(value) <= 256 for value in found.values() if isinstance(value, str))
        str(found).encode()  # protobuf has no lone surrogates


def test_the_share_of_traces_is_kept_and_no_caller_can_raise_it() -> None:
    memory = Memory()
    sink = OtelSink(memory, ratio=0.1)
    for number in range(1000):
        trace = f"{number * 2**54 + 1:032x}"  # spread over the ids that the ratio looks at
        sink.take(finished(spans=(), traceparent=f"00-{trace}-{'2' * 16}-01"))
    sink.take(finished(spans=(), traceparent=TRACEPARENT.removesuffix("01") + "00"))
    sink.rest()
    assert 80 <= len(memory.spans) <= 120


@pytest.mark.parametrize("parent", ["", "00-zz-1-01", "\ud800", "00-" + "0" * 32 + "-1-01"])
def test_a_parent_that_is_none_begins_a_new_trace(parent: str) -> None:
    memory = Memory()
    sink = OtelSink(memory)
    sink.take(finished(traceparent=parent, spans=()))
    sink.rest()
    assert memory.spans[0].parent is None


def test_other_records_make_no_spans() -> None:
    memory = Memory()
    sink = OtelSink(memory)
    sink.take(RequestRefused(NOW, "key", 401, "auth.unknown"))
    sink.rest()
    assert memory.spans == []


def test_a_collector_that_refuses_is_counted(receiver: Collector) -> None:
    receiver.status = 400
    telemetry = Telemetry([OtelSink(otlp_exporter(receiver.url))])
    telemetry.emit(finished())
    assert telemetry.close()
    state = telemetry.states()[0]
    assert (state.failures, state.detail) == (1, "StorageError")


def test_a_dead_collector_costs_the_caller_and_the_other_sinks_nothing() -> None:
    kept = Kept()
    dead = OtelSink(otlp_exporter("http://127.0.0.1:9/v1/traces", timeout=0.5))
    telemetry = Telemetry([dead, kept], capacity=200)
    began, worst = time.monotonic(), 0.0
    while time.monotonic() - began < 1.0:
        one = time.perf_counter()
        telemetry.emit(finished())
        worst = max(worst, time.perf_counter() - one)
        time.sleep(0.001)
    state, other = telemetry.states()
    assert worst < 0.1
    assert state.failures >= 1
    assert (other.failures, other.dropped) == (0, 0)
    telemetry.close(timeout=2)
    assert len(kept.records) > 100
