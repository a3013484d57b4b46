"""Lines that a log collector can always read, and that no text in a record can forge."""

from __future__ import annotations

import io
import json
import logging
import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import UsageError
from foreword.telemetry.hub import Telemetry
from foreword.telemetry.json_log import MAX_LINE, JsonFormatter, JsonLog, line, record_line
from foreword.telemetry.records import Attached, PrefixEvicted, ReleaseSeen, RequestRefused, Span
from tests.telemetry.made import BASE, DIGEST, NOW, finished, loaded

WILD = st.text(st.characters(categories=["Cc", "Cf", "Cs", "Co", "L", "So", "Zl"]), max_size=900)


def test_a_request_is_one_object_with_its_digest_and_its_trace() -> None:
    told = json.loads(record_line(finished(time=NOW, cache_tier="device")))
    assert told.pop("spans").keys() == {
        "resolve", "authorise", "fetch", "verify", "attach", "prefill", "decode"
    }  # fmt: skip
    assert told == {
        "time": "2026-09-21T14:13:20.000+00:00",
        "level": "info",
        "event": "request.finished",
        "id": "req-1",
        "operation": "chat",
        "tenant": "acme",
        "key_id": "k_1",
        "attached": {
            "name": "acme/support", "version": "1.2.0", "digest": DIGEST, "length": 16,
            "arm": "stable",
        },
        "base": BASE,
        "status": 200,
        "code": "",
        "fallback": "",
        "stream": True,
        "prompt_tokens": 100,
        "cached_tokens": 60,
        "completion_tokens": 11,
        "first_token": 0.1,
        "duration": 1.1,
        "cache_tier": "device",
        "trace_id": "1" * 32,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("record", "level", "event"),
    [
        (finished(status=500), "error", "request.finished"),
        (finished(fallback="prefix.no_room"), "warning", "request.finished"),
        (RequestRefused(NOW, "key", 401, "auth.unknown"), "info", "request.refused"),
        (loaded(), "info", "prefix.loaded"),
        (loaded("prefix.damaged"), "warning", "prefix.loaded"),
        (PrefixEvicted(NOW, DIGEST, "room"), "info", "prefix.evicted"),
        (ReleaseSeen(NOW, "acme/support", 7, DIGEST), "info", "release.seen"),
    ],
)
def test_every_record_has_a_line(record: Any, level: str, event: str) -> None:
    told = json.loads(record_line(record))
    assert (told["level"], told["event"]) == (level, event)


@given(WILD, WILD, WILD)
def test_no_text_breaks_a_line_or_reaches_a_terminal(one: str, two: str, three: str) -> None:
    told = record_line(
        finished(
            id=one,
            tenant=two,
            key_id=three,
            base=one,
            code=two,
            fallback=three,
            traceparent=one,
            attached=Attached(one, two, three, 1, one),
            spans=tuple(Span(t, 0, 1) for t in one[:99]),
        )
    )
    assert told.isascii()
    assert told.endswith("\n")
    assert all(character >= " " and character != "\x7f" for character in told[:-1])
    assert len(told) <= MAX_LINE
    assert json.loads(told)["tenant"].startswith(two[:8])


def test_the_longest_record_is_cut_to_fit() -> None:
    wide = "\U0001f600" * 10_000  # 12 bytes each, escaped
    record = finished(
        id=wide, tenant=wide, key_id=wide, base=wide, code=wide, fallback=wide, operation=wide,
        attached=Attached(wide, wide, wide, 1, wide),
        spans=tuple(Span(wide[:n], 0, 1) for n in range(500)),
    )  # fmt: skip
    told = record_line(record)
    assert len(told) <= MAX_LINE
    assert json.loads(told)["status"] == 200


def test_numbers_that_json_has_not_are_null_and_times_beyond_the_calendar_empty() -> None:
    told = json.loads(record_line(finished(duration=math.nan, first_token=math.inf, time=1e300)))
    assert (told["duration"], told["first_token"], told["time"]) == (None, None, "")


def test_a_line_that_cannot_be_cut_is_an_error_of_the_sink_and_not_a_long_line() -> None:
    with pytest.raises(ValueError, match="remain"):
        line({f"k{i}": [["x" * 8] * 32] * 32 for i in range(32)})


def test_the_sink_writes_through_its_stream_at_once() -> None:
    stream = io.StringIO()
    telemetry = Telemetry([JsonLog(stream)])
    telemetry.emit(finished())
    telemetry.emit(PrefixEvicted(NOW, DIGEST, "operator"))
    assert telemetry.flush()
    assert [json.loads(each)["event"] for each in stream.getvalue().splitlines()] == [
        "request.finished", "prefix.evicted",
    ]  # fmt: skip


def formatted(message: str, *arguments: object, error: BaseException | None = None) -> Any:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("uvicorn", logging.ERROR, "x.py", 1, message, arguments, info)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_what_libraries_log_has_the_same_form() -> None:
    told = formatted("%s\nforged", "a\x1b[2J")
    assert told["message"] == "a\x1b[2J\nforged"
    assert (told["level"], told["event"], told["logger"]) == ("error", "log", "uvicorn")


@pytest.mark.parametrize(
    "message",
    ["key fwk_ab12_c2VjcmV0LXZhbHVl is new", "Authorization: Bearer c2VjcmV0LXZhbHVl"],
)
def test_keys_are_masked_in_what_libraries_log(message: str) -> None:
    told = formatted(message)["message"]
    assert "c2VjcmV0" not in told
    assert "***" in told


def test_of_a_strangers_exception_only_type_and_place_are_told() -> None:
    try:
        raise ValueError("My credit card number is 4111")
    except ValueError as e:
        told = formatted("failed", error=e)
    assert told["error"] == "ValueError"
    assert told["where"][-1].startswith("test_json_log.py:")
    assert "4111" not in json.dumps(told)


def test_our_own_errors_are_told_as_they_are_meant_for_people() -> None:
    assert formatted("failed", error=UsageError("too long"))["error_message"] == "too long"


def test_a_program_that_logs_through_it_writes_nothing_but_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("a library")
    logger.addHandler(handler)
    logger.warning("one")
    logger.error("two\r\n\u2028three")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(each)["message"] for each in lines] == ["one", "two\r\n\u2028three"]
