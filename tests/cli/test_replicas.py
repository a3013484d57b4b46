"""`foreword replicas`: real admin APIs on loopback, one that is dead and one that is something else."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import uvicorn

from foreword.artifact import Digest
from foreword.cli.main import main
from foreword.registry.entries import Head
from foreword.registry.releases import Release
from foreword.serving.contract import ResidentPrefix
from foreword.serving.gateway.access.keys import OPERATOR, issue
from foreword.serving.gateway.access.store import AccessStore
from foreword.serving.gateway.admin.app import admin_app
from foreword.serving.gateway.admin.parts import AdminParts
from foreword.serving.gateway.routing.table import Named, ReleaseTable
from tests.gateway.access.samples import BY, NOW

ONE, TWO, LOST = Digest.of(b"one"), Digest.of(b"two"), Digest.of(b"lost")


@dataclass
class Replica:
    seq: int
    age: float
    release: Release
    has: tuple[Digest, ...]

    @property
    def table(self) -> ReleaseTable:
        versions = {"1.0.0": ONE, "2.0.0": TWO}
        named = Named("acme/support", self.release, {}, versions)
        return ReleaseTable(Head(self.seq, ONE), {named.name: named}, order=(named.name,))

    def residents(self) -> tuple[ResidentPrefix, ...]:
        return tuple(ResidentPrefix(digest, 1, 0) for digest in self.has)

    def prefetch(self, digests: Sequence[Digest]) -> None:
        raise AssertionError("looking loads nothing")

    forget = forget_tenant = prefetch


@contextmanager
def served(replica: Replica, store: AccessStore) -> Iterator[str]:
    app = admin_app(AdminParts(store, replica, replica, now=lambda: NOW))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


class Other(BaseHTTPRequestHandler):
    """Something else than a replica."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"names": [1, "\x1b[31m"]}')

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def other() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@dataclass
class Fleet:
    ahead: str
    behind: str
    dead: str
    other: str
    key: Path

    def run(self, *urls: str, more: Sequence[str] = ()) -> int:
        given = [word for url in urls for word in ("--url", url)]
        with pytest.raises(SystemExit) as ended:
            main(["replicas", *given, "--key-file", str(self.key), *more])
        return int(ended.value.code or 0)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    store = AccessStore(tmp_path / "access")
    text, record = issue(OPERATOR, NOW)
    store.change(lambda table: table.with_key(record), BY)
    key = tmp_path / "admin.key"
    key.write_text(f"{text}\n")
    with ExitStack() as stack, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        name = "acme/support"
        ahead = Replica(9, 0.25, Release(name, ONE, TWO, 0.5), (ONE, TWO))
        behind = Replica(7, float("inf"), Release(name, ONE), (LOST,))
        yield Fleet(
            stack.enter_context(served(ahead, store)),
            stack.enter_context(served(behind, store)),
            f"http://127.0.0.1:{taken.getsockname()[1]}",
            stack.enter_context(other()),
            key,
        )


def test_it_says_who_has_what_and_a_dead_replica_is_a_row(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = (fleet.ahead, fleet.behind, fleet.dead, fleet.other)
    assert fleet.run(*urls, more=["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    replicas = {each["url"]: each for each in told["replicas"]}
    assert list(replicas) == list(urls)
    assert [replicas[url]["seq"] for url in urls] == [9, 7, None, None]
    assert [replicas[url]["age_seconds"] for url in urls] == [0.25, None, None, None]
    assert "ConnectError" in replicas[fleet.dead]["problem"]
    assert "something else" in replicas[fleet.other]["problem"]
    assert [
        (each["prefix"], each["digest"], list(each["at"].values())) for each in told["prefixes"]
    ] == [
        ("acme/support@1.0.0", str(ONE), ["resident stable", "absent stable", "?", "?"]),
        ("acme/support@2.0.0", str(TWO), ["resident canary", "absent", "?", "?"]),
        ("?", str(LOST), ["absent", "resident", "?", "?"]),
    ]


def test_for_people_it_is_a_row_each(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert fleet.run(fleet.ahead, fleet.behind, fleet.dead) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == [fleet.ahead, "answers", "entry 9", "0.2 s ago", "2"]
    assert rows[1] == [fleet.behind, "answers", "entry 7", "never", "1"]
    assert rows[2][0] == fleet.dead
    assert rows[2][2:] == ["?", "?", "?"]
    assert rows[3] == ["acme/support@1.0.0", ONE.short, "resident stable", "absent stable", "?"]


def test_a_wrong_key_is_told_and_not_shown(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, _ = issue(OPERATOR, NOW)
    fleet.key.write_text(wrong)
    assert fleet.run(fleet.ahead) == 0
    shown = capsys.readouterr()
    assert "401 auth.unknown" in shown.out
    assert wrong not in shown.out + shown.err


@pytest.mark.parametrize("text", ["", "two\nlines", "größer"])
def test_a_file_that_is_no_key_is_refused(
    fleet: Fleet, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.key.write_text(text)
    assert fleet.run(fleet.ahead) == 2
    assert "replicas.key" in capsys.readouterr().err


def test_an_address_without_a_scheme_is_refused(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fleet.run("127.0.0.1:9000") == 2
    assert "replicas.url" in capsys.readouterr().err
