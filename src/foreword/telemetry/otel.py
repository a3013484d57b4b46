"""Requests as OpenTelemetry traces, sent to a collector over OTLP/HTTP (extra `otlp`).

A request is told when it has ended, so its spans are made afterwards, from the times in its record. A
collector that is slow or away holds up this sink's own thread only; what its queue then loses is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from foreword.errors import ConfigError, StorageError
from foreword.telemetry import semconv
from foreword.telemetry.metrics.closed import BASE
from foreword.telemetry.records import Record, RequestFinished

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from opentelemetry.trace import Span as OpenSpan
    from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as e:
    raise ConfigError(
        "traces need the OpenTelemetry SDK: pip install 'foreword[otlp]'", code="otlp.missing"
    ) from e

_BATCH = 512
_MOST_STEPS = 32
_LONGEST_TEXT = 256
_LAST_SECOND = 9e9  # in the year 2255; nanoseconds have 64 bits

Attributes = dict[str, str | bool | int | float]


class Exporter(Protocol):
    """Where finished spans go."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult: ...

    def shutdown(self) -> None: ...


def otlp_exporter(
    endpoint: str, headers: Mapping[str, str] | None = None, timeout: float = 5.0
) -> Exporter:
    """To a collector's `.../v1/traces`. `timeout` bounds one batch, tries included, in seconds."""
    return OTLPSpanExporter(endpoint=endpoint, headers=dict(headers or {}), timeout=timeout)


class OtelSink:
    """Turns each finished request into one root span and one child for each of its steps.

    Args:
        exporter: such as `otlp_exporter(url)`.
        ratio: share of traces that is kept. A caller's `traceparent` can turn a trace off; it cannot
            get more than this share in.
        resource: what the process says of itself, such as `{"service.instance.id": ...}`.
    """

    def __init__(
        self, exporter: Exporter, *, ratio: float = 1.0, resource: Mapping[str, str] | None = None
    ) -> None:
        share = TraceIdRatioBased(ratio)
        provider = TracerProvider(
            sampler=ParentBased(share, remote_parent_sampled=share),
            resource=Resource.create({"service.name": "foreword", **(resource or {})}),
            shutdown_on_exit=False,
        )
        self._exporter, self._ended = exporter, _Ended()
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer("foreword", schema_url=semconv.SCHEMA)
        self._propagator = TraceContextTextMapPropagator()

    def take(self, record: Record) -> None:
        if not isinstance(record, RequestFinished):
            return
        identity = _identity(record)
        parent = self._propagator.extract({"traceparent": record.traceparent[:_LONGEST_TEXT]})
        root = self._tracer.start_span(
            _text(f"{record.operation} {identity[semconv.PREFIX_ID]}"),
            parent,
            SpanKind.SERVER,
            identity | _request(record),
            start_time=_nanoseconds(record.time - record.duration),
        )
        if record.status >= 500:  # what a client did wrong is no error of a server's span
            root.set_status(Status(StatusCode.ERROR))
        if root.is_recording():
            self._steps(record, root, identity)
        root.end(_nanoseconds(record.time))
        if len(self._ended.spans) >= _BATCH:
            self._export()

    def rest(self) -> None:
        if self._ended.spans:
            self._export()

    def close(self) -> None:
        try:
            self.rest()
        finally:
            self._exporter.shutdown()

    def _steps(self, record: RequestFinished, root: OpenSpan, identity: Attributes) -> None:
        within = set_span_in_context(root)
        for step in record.spans[:_MOST_STEPS]:
            child = self._tracer.start_span(
                _text(step.name),
                within,
                attributes=identity,
                start_time=_nanoseconds(step.start),
            )
            child.end(_nanoseconds(step.end))

    def _export(self) -> None:
        """What cannot be sent is given up: a trace is not worth the memory of waiting for it."""
        spans, self._ended.spans = self._ended.spans, []
        if self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise StorageError(f"{len(spans)} spans were not taken", code="storage.remote")


class _Ended(SpanProcessor):
    """Collects sampled spans."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def _identity(record: RequestFinished) -> Attributes:
    """On every span, so that none can be without its prefix; `base` is the bare model."""
    attached = record.attached
    values: Attributes = {
        semconv.PREFIX_ID: attached.name or BASE,
        semconv.PREFIX_VERSION: attached.version,
        semconv.PREFIX_DIGEST: attached.digest,
        semconv.PREFIX_BASE: record.base,
        semconv.PREFIX_LENGTH: attached.length,
        semconv.PREFIX_TENANT: record.tenant,
        semconv.PREFIX_TIER: record.cache_tier,
        semconv.PREFIX_ARM: attached.arm,
    }
    return _present(values)


def _request(record: RequestFinished) -> Attributes:
    attached = record.attached
    values: Attributes = {
        semconv.OPERATION: "chat" if record.operation == "chat" else "text_completion",
        semconv.PROVIDER: "foreword",
        semconv.RESPONSE_MODEL: f"{attached.name}@{attached.version}" if attached.name else BASE,
        semconv.RESPONSE_ID: record.id,
        semconv.STREAM: record.stream,
        semconv.INPUT_TOKENS: record.prompt_tokens,
        semconv.CACHED_TOKENS: record.cached_tokens,
        semconv.OUTPUT_TOKENS: record.completion_tokens,
        semconv.STATUS: record.status,
        semconv.ERROR: record.code,
        semconv.PREFIX_FALLBACK: record.fallback,
    }
    if record.first_token is not None:
        values[semconv.FIRST_CHUNK] = record.first_token
    return _present(values)


def _present(values: Attributes) -> Attributes:
    """Without what nobody knows, and with texts that protobuf can hold."""
    return {
        name: _text(value) if isinstance(value, str) else value
        for name, value in values.items()
        if value != ""
    }


def _text(value: str) -> str:
    """Cut here, because the SDK logs each text that it cuts. Lone surrogates become `?`."""
    return value[:_LONGEST_TEXT].encode(errors="replace").decode()


def _nanoseconds(seconds: float) -> int:
    """A time that OTLP can hold, whatever a record says."""
    return round(min(max(seconds, 0.0), _LAST_SECOND) * 1e9) if math.isfinite(seconds) else 0
