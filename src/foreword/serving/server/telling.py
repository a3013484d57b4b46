"""Where this process tells what happened: metrics, logs, traces and what tenants used."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from foreword.errors import ConfigError
from foreword.serving.server.settings import TelemetrySettings
from foreword.telemetry.hub import Sink, Telemetry
from foreword.telemetry.json_log import JsonFormatter, JsonLog
from foreword.telemetry.prometheus import PrometheusSink
from foreword.telemetry.records import Gauges
from foreword.telemetry.usage import UsageSink, read_prices


@dataclass(frozen=True)
class Telling:
    hub: Telemetry
    metrics: PrometheusSink
    usage: Path | None
    """Directory of what tenants used, if it is counted."""


@contextmanager
def telling(
    settings: TelemetrySettings, gauges: Callable[[], Gauges], place: Path
) -> Iterator[Telling]:
    """Every sink the settings ask for; at the end, what was emitted is written out.

    Raises:
        ConfigError: a sink cannot be had (`otlp.missing`, `serve.log`), or the prices are none.
        StorageError: the place for usage cannot be used.
    """
    with ExitStack() as opened:
        metrics = PrometheusSink(gauges)
        sinks: list[Sink] = [metrics]
        stream = opened.enter_context(_stream(settings.log))
        _log_to(stream)
        if settings.log:
            sinks.append(JsonLog(stream))
        if settings.usage:
            prices = read_prices(settings.prices) if settings.prices else None
            sinks.append(UsageSink(place / "usage", prices))
        if settings.otlp:
            sinks.append(_traces(settings.otlp, settings.trace_ratio))
        hub = Telemetry(sinks)
        metrics.watch(hub.states)
        try:
            yield Telling(hub, metrics, place / "usage" if settings.usage else None)
        finally:
            hub.close()


def _traces(url: str, ratio: float) -> Sink:
    from foreword.telemetry.otel import OtelSink, otlp_exporter

    return OtelSink(otlp_exporter(url), ratio=ratio)


@contextmanager
def _stream(log: str) -> Iterator[TextIO]:
    if log in ("", "-"):
        yield sys.stderr
        return
    with _opened(log) as file:
        yield file


def _opened(log: str) -> TextIO:
    try:
        return Path(log).open("a", encoding="ascii")
    except OSError as e:
        raise ConfigError(
            f"--log {log[:200]!r} cannot be written ({e.strerror}); name another file, or `-` for "
            "stderr",
            code="serve.log",
        ) from e


def _log_to(stream: TextIO) -> None:
    """What libraries log becomes lines of the same form, without what strangers' errors quote."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
