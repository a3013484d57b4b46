"""Places for requests, the gate of a server that stops, and how late the loop is."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.serving.gateway.edge import EdgeSettings, LagMonitor
from foreword.serving.gateway.edge.lag import Lags
from foreword.serving.gateway.edge.overload import admits
from tests.gateway.edge_server import AUTHORIZED, Little, Served, answer, request, served, until


@given(st.lists(st.sampled_from("abcd"), max_size=200), st.integers(1, 40))
def test_places_are_never_exceeded_and_an_even_share_is_left(
    arrivals: list[str], most: int
) -> None:
    inside: Counter[str] = Counter()
    for tenant in arrivals:
        if admits(tenant, inside, most):
            inside[tenant] += 1
    assert inside.total() <= most
    if len(set(arrivals)) == 1:
        assert inside.total() == min(most, len(arrivals))


@given(st.integers(2, 8), st.integers(20, 200), st.randoms(use_true_random=False))
def test_a_tenant_that_asks_most_does_not_keep_others_out(
    tenants: int, most: int, random: object
) -> None:
    """Everybody asks again and again, one of them ten times as often, and requests end by chance."""
    inside: Counter[str] = Counter()
    served_: Counter[str] = Counter()
    names = [f"t{i}" for i in range(tenants)]
    for _ in range(60):
        for name in [names[0]] * (10 * most) + [n for n in names[1:] for _ in range(most)]:
            if admits(name, inside, most):
                inside[name] += 1
                served_[name] += 1
        for name, count in list(inside.items()):
            inside[name] -= (count + 1) // 2
            inside += Counter()
    assert max(served_.values()) <= 2 * min(served_.values())


def hang(running: Served, count: int, header: str = AUTHORIZED) -> list[socket.socket]:
    before = running.edge.overload.inside.total()
    socks = [running.connect() for _ in range(count)]
    for sock in socks:
        sock.sendall(request("GET /v1/hang", header))
    until(lambda: running.edge.overload.inside.total() == before + count)
    return socks


def test_one_request_too_many_is_told_so_within_milliseconds() -> None:
    with served(Little(), EdgeSettings(requests=4)) as running:
        socks = hang(running, 4)
        with running.connect() as sock:
            times = []
            for _ in range(20):
                began = time.monotonic()
                sock.sendall(request("GET /v1/echo", AUTHORIZED))
                told = answer(sock)
                times.append(time.monotonic() - began)
                assert (told.status, told.code) == (503, "serving.overloaded")
                assert int(told.headers["retry-after"]) >= 1
        assert sorted(times)[len(times) // 2] < 0.02
        assert running.ask("GET /livez").status == 200, "an open door is never full"
        for sock in socks:
            sock.close()
        until(lambda: not running.edge.overload.inside)
        assert running.ask("GET /v1/echo", AUTHORIZED).status == 200


def test_slow_bodies_hold_no_place() -> None:
    with served(Little(), EdgeSettings(requests=2)) as running:
        slow = [running.connect() for _ in range(5)]
        for sock in slow:
            sock.sendall(request("POST /v1/echo", AUTHORIZED, "Content-Type: application/json",
                                 "Content-Length: 10") + b"{")  # fmt: skip
        until(lambda: running.edge.gate.inside == 5)
        assert running.ask("GET /v1/echo", AUTHORIZED).status == 200
        for sock in slow:
            sock.close()


def test_a_server_that_stops_lets_out_who_is_inside_and_nobody_in() -> None:
    with served(Little()) as running:
        socks = hang(running, 3)

        def wait(seconds: float) -> bool:
            waiting = running.edge.gate.wait(seconds)
            return asyncio.run_coroutine_threadsafe(waiting, running.loop).result(10)

        running.loop.call_soon_threadsafe(running.edge.gate.drain)
        until(lambda: running.edge.gate.draining)
        told = running.ask("GET /v1/echo", AUTHORIZED)
        assert (told.status, told.code) == (503, "serving.draining")
        assert told.headers["connection"] == "close"
        assert "retry-after" in told.headers
        assert running.ask("GET /livez").status == 200
        assert running.ask("GET /v1/echo").status == 401
        assert wait(0.05) is False
        for sock in socks:
            sock.close()
        assert wait(5) is True


def test_a_lag_stands_for_what_was_not_measured_meanwhile() -> None:
    lags = Lags(interval=0.05, window=5.0)
    assert lags.quantile(0.99) == 0
    for _ in range(80):
        lags.add(0.001)
    lags.add(1.0)
    assert lags.quantile(1.0) == 1.0
    assert lags.quantile(0.5) <= 0.05, "most of the time nobody waited"
    assert lags.quantile(0.99) >= 0.9, "one measurement of 100 would have hidden it"


@given(st.lists(st.floats(-0.01, 100), max_size=300))
def test_lags_keep_to_their_window(values: list[float]) -> None:
    lags = Lags(interval=0.05, window=5.0)
    for value in values:
        lags.add(value)
    assert 0 <= lags.quantile(0.5) <= lags.quantile(1.0)
    assert len(lags._lags) <= 100


def test_a_blocked_loop_is_noticed_and_a_free_one_is_not_blamed() -> None:
    async def measured(block: float) -> tuple[float, float]:
        monitor = LagMonitor(interval=0.005, window=2.0)
        monitor.start()
        for _ in range(20):
            await asyncio.sleep(0.01)
        time.sleep(block)
        await asyncio.sleep(0.02)
        seen = monitor.p99(), monitor.worst()
        await monitor.stop()
        return seen

    _, worst = asyncio.run(measured(0.3))
    assert worst == pytest.approx(0.3, abs=0.1)
    p99, _ = asyncio.run(measured(0.0))
    assert p99 < 0.1
