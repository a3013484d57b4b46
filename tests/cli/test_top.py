"""`foreword top`: figures from a real server's operator's port, and the arithmetic behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from foreword.client.top.look import look
from foreword.client.top.page import NOTHING, Page, between, grown, quantile, read_page
from foreword.errors import ServingError
from foreword.serving.gateway.edge import EdgeSettings, guarded_config
from foreword.serving.server.operator import operator_port
from foreword.telemetry.prometheus import PrometheusSink
from foreword.telemetry.records import Attached, Gauges, RequestFinished
from tests.cli.inside import inside
from tests.gateway.edge_server import running, until
from tests.reliability.toy_server import Inside, home

INF = float("inf")


@contextmanager
def operated(server: Inside) -> Iterator[str]:
    """The address of its operator's port."""
    app = operator_port(server.house, server.engine.backend)
    refused = server.house.edge.refused
    config = guarded_config(app, EdgeSettings(), refused, host="127.0.0.1", port=0, grace=1)
    with running(config) as (listening, _):
        yield f"http://127.0.0.1:{listening.servers[0].sockets[0].getsockname()[1]}"


def test_a_server_at_a_glance() -> None:
    with home() as at:
        at.publish("acme/p1")
        with at.serving() as server, operated(server) as url:
            until(lambda: server.ask("acme/p1").right)
            assert server.ask("acme/p1").right
            assert server.client.get("/v1/models/acme/p2").status_code == 404
            once = ("top", "--url", url, "--once", "--every", "0.3")
            said, shown = json.loads(inside(*once, "--json").stdout), inside(*once).stdout
            wrong = inside("top", "--url", server.url, "--once")
    assert (said["ready"], said["problems"], said["releases"]) == (True, [], 1)
    (line,) = said["prefixes"]
    assert line["name"] == "acme/p1@1.0.1"
    assert 0 < line["first_token"]["p50"] <= line["first_token"]["p99"]
    assert said["wrong_digests"] == 0
    assert f"{url}  ready" in shown
    assert shown.splitlines()[-1].startswith("acme/p1@1.0.1\t")
    assert wrong.returncode == 9
    assert "error[top.page]" in wrong.stderr


def test_nothing_listens() -> None:
    done = inside("top", "--url", "http://127.0.0.1:9")
    assert done.returncode == 9
    assert done.stderr.startswith("error[client.unreachable]: nothing answers at")
    assert done.stdout == ""


def finished(number: int, seconds: float, status: int = 200) -> RequestFinished:
    attached = Attached("acme/support", "1.0.0", "sha256:" + "1" * 64, 4, "stable")
    return RequestFinished(
        float(number), f"r{number}", "chat", "acme", "k", attached, "sha256:" + "2" * 64, status,
        prompt_tokens=10, completion_tokens=5, first_token=0.1, duration=seconds,
    )  # fmt: skip


def test_figures_follow_from_what_the_server_counted() -> None:
    gauges = Gauges(running=3, kv_bytes=25, kv_budget=100, resident=7, hits=30, misses=10)
    sink = PrometheusSink(lambda: gauges)
    for number in range(10):
        sink.take(finished(number, 0.2))
    before = Page(read_page(sink.page().decode()).series, 100.0)
    for number in range(20):
        sink.take(finished(number, 0.04, 503 if number < 5 else 200))
    now = Page(read_page(sink.page().decode()).series, 102.0)
    parts = {"engine": {"well": False, "code": "engine.late"}, "access": {"well": True}}
    found = look({"ready": False, "parts": parts}, before, before, now)
    assert (found.ready, found.problems) == (False, ("engine: engine.late",))
    assert (found.requests, found.failed, found.tokens) == (10.0, 2.5, 50.0)
    assert (found.running, found.resident, found.kv_used) == (3, 7, 0.25)
    # All of the second batch lie below 0.05 s, all of the first below 0.25 s.
    assert found.duration.p99 == pytest.approx(0.0495)
    assert look({}, NOTHING, before, now).duration.p99 > 0.1  # type: ignore[operator]
    (line,) = (each for each in found.prefixes if each.name == "acme/support@1.0.0")
    assert (line.requests, line.errors) == (10.0, 2.5)
    assert found.hit_rate is None  # nothing came in between
    assert look({}, NOTHING, before, now).hit_rate == 0.75


@pytest.mark.parametrize(
    ("share", "buckets", "expected"),
    [  # as PromQL's histogram_quantile says
        (0.5, ((1.0, 4.0), (2.0, 8.0), (INF, 8.0)), 1.0),
        (0.75, ((1.0, 4.0), (2.0, 8.0), (INF, 8.0)), 1.5),
        (0.5, ((1.0, 0.0), (2.0, 10.0), (INF, 10.0)), 1.5),
        (0.99, ((1.0, 1.0), (INF, 10.0)), 1.0),
        (0.5, ((1.0, 0.0), (INF, 0.0)), None),
        (0.5, (), None),
    ],
)
def test_quantiles_of_histograms(
    share: float, buckets: tuple[tuple[float, float], ...], expected: float | None
) -> None:
    assert quantile(share, buckets) == expected


def test_a_restarted_server_counts_from_zero() -> None:
    before, now = Page({"c": {(): 100.0}}), Page({"c": {(): 3.0}})
    assert grown(before, now, "c") == 3.0
    assert between(((1.0, 9.0),), ((1.0, 2.0),)) == ((1.0, 2.0),)


@pytest.mark.parametrize("text", ["", "up 1\n", "<html>", '{"a": 1}'])
def test_other_pages_are_refused(text: str) -> None:
    with pytest.raises(ServingError, match="operator's port"):
        read_page(text)
