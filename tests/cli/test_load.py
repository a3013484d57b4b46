"""`foreword load`: what it asks, what it measures, and that it finds a wrong receipt."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from foreword.client.address import address
from foreword.client.load.figures import Figures, figures
from foreword.client.load.plan import Plan, arrivals, asks
from foreword.client.load.run import run
from foreword.errors import Overloaded, UsageError
from tests.cli.inside import inside
from tests.gateway.front_door import NAME, FrontDoor, front_door

DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@pytest.fixture(scope="module")
def door() -> Iterator[FrontDoor]:
    with front_door() as made:
        yield made


def loaded(url: str, plan: Plan, key: str = "") -> Figures:
    return figures(asyncio.run(run(address(url, key), plan)))


def test_a_load_counts_what_the_server_counts(
    door: FrontDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREWORD_URL", door.url)
    (tmp_path / "key").write_text(door.keys["acme"] + "\n")
    done = inside(
        "load", "--key-file", str(tmp_path / "key"), "--requests", "60", "--concurrency", "6",
        "--max-tokens", "3", "--prefix", NAME, "--prefix", "base", "--prefix", f"{NAME}@1.0.0",
        "--out", str(tmp_path / "out.json"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "out.json").read_text())
    assert (said["requests"], said["answered"], said["tokens"]) == (60, 60, 180)
    assert (said["errors"], said["wrong_receipts"]) == ({}, 0)
    assert sum(said["by_model"].values()) == len(door.backend.asked) == 60
    assert set(said["latency_ms"]) == {"whole", "stream"}
    assert 0 < said["first_token_ms"]["p50"] <= said["latency_ms"]["stream"]["max"]
    assert "receipts   0 wrong" in done.stdout


def test_errors_are_counted_by_the_servers_code(door: FrontDoor) -> None:
    count = itertools.count()
    door.backend.fails = lambda request: Overloaded("full") if next(count) % 2 else None
    try:
        found = loaded(door.url, Plan((NAME,), requests=20, concurrency=1), door.keys["acme"])
    finally:
        door.backend.fails = lambda request: None
    assert found.errors == {"serving.overloaded": 10}
    assert found.answered == 10


def test_an_open_loop_keeps_its_rate_and_says_what_had_no_place(door: FrontDoor) -> None:
    plan = Plan((NAME,), rate=100, seconds=1.0, concurrency=2, max_tokens=1, streams=0)
    door.backend.first = 0.1
    try:
        found = loaded(door.url, plan, door.keys["acme"])
    finally:
        door.backend.first = 0.0
    due = sum(1 for _ in itertools.takewhile(lambda at: at < 1.0, arrivals(plan)))
    assert 80 < due < 120
    assert found.requests + found.unsent == due
    assert 10 <= found.requests <= 22  # two places, a tenth of a second each
    # Who waited for a place waited for an answer.
    assert found.latency_ms["whole"]["max"] > 500


def test_popularity_follows_zipf_and_the_seed_decides_everything() -> None:
    plan = Plan(("a/a", "b/b", "c/c"), zipf=1.0, streams=0.25)
    first = list(itertools.islice(asks(plan), 6_000))
    assert first == list(itertools.islice(asks(plan), 6_000))
    assert first != list(itertools.islice(asks(Plan(plan.models, seed=1, streams=0.25)), 6_000))
    counts = Counter(each.model for each in first)
    for rank, model in enumerate(plan.models, 1):
        assert counts[model] / 6_000 == pytest.approx(6 / 11 / rank, abs=0.03)
    assert sum(each.stream for each in first) / 6_000 == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("receipt", "model", "wrong"),
    [
        ({"prefix": "acme/support", "version": "1.0.0", "digest": DIGEST}, "acme/support", False),
        ({"prefix": "acme/support", "version": "1.0.0", "digest": DIGEST}, DIGEST, False),
        ({"prefix": "acme/support", "version": "1.0.0", "digest": DIGEST}, "acme/support@stable", False),
        ({}, "base", False),
        ({"wanted": "acme/support@1.0.0"}, "acme/support", False),  # it stood in, and says so
        ({}, "acme/support", True),
        ({"prefix": "acme/other", "version": "1.0.0", "digest": DIGEST}, "acme/support", True),
        ({"prefix": "acme/support", "version": "1.0.1", "digest": DIGEST}, "acme/support@1.0.0", True),
        ({"prefix": "acme/support", "version": "1.0.0", "digest": OTHER}, DIGEST, True),
        ({"prefix": "acme/support", "version": "1.0.0", "digest": DIGEST}, "base", True),
        ({"prefix": "acme/support", "version": "1.0.0"}, "acme/support", True),
    ],
)  # fmt: skip
def test_a_wrong_receipt_is_found(receipt: dict[str, str], model: str, wrong: bool) -> None:
    with lying(lambda number: receipt) as url:
        found = loaded(url, Plan((model,), requests=3, streams=0))
    assert found.answered == 3, found.errors
    assert found.wrong_receipts == (3 if wrong else 0), found.wrong


def test_one_version_with_two_digests_is_found_and_ends_with_an_error() -> None:
    def moving(number: int) -> dict[str, str]:
        digest = DIGEST if number else OTHER
        return {"prefix": "acme/support", "version": "1.0.0", "digest": digest}

    with lying(moving) as url:
        done = inside("load", "--url", url, "--prefix", NAME, "--requests", "2", "--streams", "0",
                        "--concurrency", "1")  # fmt: skip
    assert done.returncode == 9
    assert "error[load.wrong_receipts]: 1 answers" in done.stderr


def test_another_machine_is_not_loaded_by_mistake() -> None:
    done = inside("load", "--url", "http://192.0.2.1:8000", "--prefix", NAME)
    assert done.returncode == 2
    assert "error[load.remote]" in done.stderr


@pytest.mark.parametrize(
    "wrong", [{"concurrency": 0}, {"rate": 1e9}, {"streams": 1.5}, {"seconds": float("inf")}]
)
def test_a_plan_has_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        Plan((NAME,), **wrong)


@contextmanager
def lying(receipt: Callable[[int], dict[str, str]]) -> Iterator[str]:
    """A server that says of its answers what it likes; `receipt` gets their number."""
    numbers = itertools.count()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            said: dict[str, Any] = {"prefix": None, "version": None, "digest": None, "arm": None}
            said |= receipt(next(numbers))
            wanted = said.pop("wanted", None)
            said["fallback"] = {"wanted": wanted, "reason": "prefix.no_room"} if wanted else None
            message = {"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}
            body = json.dumps(
                {"choices": [message], "usage": {"completion_tokens": 1}, "foreword": said}
            ).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.send_header("x-foreword-prefix", said["prefix"] or "base")
            if said["digest"]:
                self.send_header("x-foreword-digest", said["digest"])
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *said: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
