"""One JSON object a line: what happened, for whoever collects logs.

Lines are ASCII, at most `MAX_LINE` bytes with their end, and hold no control byte but that end:
letters outside ASCII, escape sequences and line breaks appear as `\\uXXXX`, so no id or name can forge a
line or steer a terminal. A record has no field for prompts, answers or keys, so no line can have one.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from traceback import StackSummary, extract_tb
from typing import Any, TextIO

from foreword.errors import ForewordError
from foreword.telemetry.records import (
    PrefixEvicted,
    PrefixLoaded,
    Record,
    ReleaseSeen,
    RequestFinished,
    RequestRefused,
    Span,
)

MAX_LINE = 8192
_EVENTS: Mapping[type[Any], str] = {
    RequestFinished: "request.finished",
    RequestRefused: "request.refused",
    PrefixLoaded: "prefix.loaded",
    PrefixEvicted: "prefix.evicted",
    ReleaseSeen: "release.seen",
}
_CUTS = (512, 128, 32, 8)
"""Longest text in a line; the next one is tried if the line is still too long."""
_MOST_ITEMS = 32
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_SECRETS = re.compile(r"\b(fwk_[A-Za-z0-9]+_|Bearer\s+|Basic\s+)[^\s'\",]+")


class JsonLog:
    """A sink that writes records to a stream, such as standard error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def take(self, record: Record) -> None:
        self._stream.write(record_line(record))

    def rest(self) -> None:
        self._stream.flush()


class JsonFormatter(logging.Formatter):
    """Lines of the same form for what libraries log.

    Of an exception that is not our own only its type and its place are told: the message of a
    stranger may quote what a client sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": _moment(record.created),
            "level": record.levelname.lower(),
            "event": "log",
            "logger": record.name,
            "message": _SECRETS.sub(r"\1***", record.getMessage()),
        }
        if record.exc_info and (error := record.exc_info[1]) is not None:
            values["error"] = type(error).__name__
            if isinstance(error, ForewordError):
                values["error_message"] = _SECRETS.sub(r"\1***", str(error))
            values["where"] = _places(extract_tb(error.__traceback__))
        return line(values).rstrip("\n")


def record_line(record: Record) -> str:
    """The line of a record, with its end."""
    values: dict[str, Any] = {
        "time": _moment(record.time),
        "level": _level(record),
        "event": _EVENTS[type(record)],
    }
    values |= {k: v for k, v in _fields(record).items() if k != "time"}
    if isinstance(record, RequestFinished):
        values["spans"] = _durations(record.spans)
        traced = _TRACEPARENT.fullmatch(str(values.pop("traceparent")))
        values["trace_id"] = traced[1] if traced else ""
    return line(values)


def line(values: Mapping[str, Any]) -> str:
    """One object on one line, with texts cut so that it fits."""
    text = ""
    for cut in _CUTS:
        text = json.dumps(_plain(values, cut), separators=(",", ":"), allow_nan=False)
        text = text.replace("\x7f", "\\u007f")  # the one control byte that JSON leaves alone
        if len(text) < MAX_LINE:
            return text + "\n"
    raise ValueError(f"{len(text)} bytes of JSON remain when all texts are cut")


def _level(record: Record) -> str:
    if isinstance(record, RequestFinished) and record.status >= 500:
        return "error"
    if isinstance(record, RequestFinished) and record.fallback:
        return "warning"
    return "warning" if isinstance(record, PrefixLoaded) and record.code else "info"


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _durations(spans: tuple[Span, ...]) -> dict[str, float]:
    """Seconds by step; a step that came twice counts both times."""
    seconds: dict[str, float] = {}
    for span in spans[:_MOST_ITEMS]:
        seconds[span.name] = seconds.get(span.name, 0.0) + round(span.end - span.start, 6)
    return seconds


def _plain(value: Any, cut: int) -> Any:
    """What JSON can hold exactly, with bounds on texts and collections."""
    if isinstance(value, str):
        return value if len(value) <= cut else value[:cut] + "..."
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if is_dataclass(value):
        return _plain(_fields(value), cut)
    if isinstance(value, Mapping):
        return {str(k)[:cut]: _plain(v, cut) for k, v in list(value.items())[:_MOST_ITEMS]}
    if isinstance(value, tuple | list):
        return [_plain(each, cut) for each in value[:_MOST_ITEMS]]
    return type(value).__name__


def _places(stack: StackSummary) -> list[str]:
    """Innermost last: `engine.py:120 step`."""
    return [f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in stack[-12:]]


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # no time a calendar knows
        return ""
