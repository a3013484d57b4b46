"""The life of a server process: how it starts without its registry, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from tests.gateway.edge_server import until
from tests.gateway.served import (
    FOREWORD,
    NAME,
    Ground,
    Process,
    ask,
    by,
    free_port,
    save_model,
    serving,
    streaming,
)
from tests.serving.prefix_samples import POLICY

LONG = 15_000
"""Tokens of an answer that lasts many times longer than the grace of these tests."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("long") / "model", context=16_000)


def test_a_process_ends_on_time_and_starts_without_its_registry(
    ground: Ground, model: Path
) -> None:
    made = ground.publish(1, "1.0.0")
    ground.registry.release(NAME + "@1.0.0", policy=POLICY, by=by())
    port = free_port()
    with serving(model, "--grace", "0.3", port=port) as first:
        assert ask(first, ground).json()["foreword"]["digest"] == str(made)
        _who_is_not_done_in_time_is_told(first, ground)
    _lose(ground)
    with serving(model, port=port) as again:
        assert any("what was known before is served" in line for line in again.lines)
        assert ask(again, ground).json()["foreword"]["digest"] == str(made)
        ready = httpx2.get(f"{again.admin_url}/readyz")
        releases = ready.json()["parts"]["releases"]
        assert ready.status_code == 200
        assert (releases["well"], releases["source"]) == (False, "known good")
        _a_second_signal_ends_it_at_once(again, ground)


def _who_is_not_done_in_time_is_told(process: Process, ground: Ground) -> None:
    with streaming(process, ground, max_tokens=LONG) as lines:
        next(lines)
        process.running.send_signal(signal.SIGTERM)
        until(lambda: any("stopping: 1 requests" in line for line in process.lines), 5)
        rest = list(lines)
    assert "event: error" in rest or '"error"' in rest[-2]
    assert '"code":"serving.cancelled"' in "".join(rest[-3:])
    assert "data: [DONE]" not in rest
    assert process.running.wait(20) == 0
    assert any("1 requests were not done and are told so" in line for line in process.lines)


def _lose(ground: Ground) -> None:
    """The database is gone, and what lies in its place is none."""
    database = ground.home / "registry" / "journal.db"
    for each in ground.home.glob("registry/journal.db*"):
        each.rename(each.with_name(f"lost-{each.name}"))
    database.mkdir()


def _a_second_signal_ends_it_at_once(process: Process, ground: Ground) -> None:
    with streaming(process, ground, max_tokens=LONG) as lines:
        next(lines)
        process.running.send_signal(signal.SIGTERM)
        until(lambda: any("stopping" in line for line in process.lines), 5)
        refused = httpx2.get(f"{process.url}/readyz")
        assert (refused.status_code, refused.json()["draining"]) == (503, True)
        began = time.monotonic()
        process.running.send_signal(signal.SIGINT)
        assert process.running.wait(5) == 128 + signal.SIGINT
        assert time.monotonic() - began < 2


def test_a_port_that_is_taken_is_told_before_anything_slow(ground: Ground, model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*FOREWORD, "serve", "--base", str(model), "--port", str(port), "--admin-port", "0"],
            env=os.environ, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"error[serve.address]: 127.0.0.1:{port} cannot be listened on")
    assert len(done.stderr.splitlines()) == 1
