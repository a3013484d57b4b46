"""The real Prometheus, from Debian, and a receiver of OTLP traces; both on loopback."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.registry.servers import _end_with_parent, _free_ports

_PATIENCE_SECONDS = 60


@pytest.fixture(scope="session")
def prometheus_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `prometheus` and `promtool` are.

    What is not installed is unpacked for this run: installing it would start a server for everybody.
    """
    if found := shutil.which("promtool"):
        return Path(found).parent
    if os.geteuid() == 0 and shutil.which("apt-get"):
        place = tmp_path_factory.mktemp("prometheus")
        for command in (
            ["apt-get", "-q", "update"],
            ["apt-get", "-q", "download", "prometheus"],
            ["sh", "-c", "dpkg -x prometheus_*.deb ."],
        ):
            subprocess.run(
                command,
                cwd=place,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        if (place / "usr/bin/promtool").exists():
            return place / "usr/bin"
    pytest.skip("needs the Debian package prometheus")


@contextlib.contextmanager
def prometheus(programs: Path, target: int, rules: Path) -> Iterator[Callable[[str], list[Any]]]:
    """Prometheus, scraping a port each second; gives a function that runs a query."""
    home = Path(tempfile.mkdtemp(prefix="foreword-prometheus-"))
    (port,) = _free_ports(1)
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": "foreword", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        ],
    }
    (home / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [programs / "prometheus", f"--config.file={home}/prometheus.yml",
             f"--storage.tsdb.path={home}/data", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log, cwd=home, preexec_fn=_end_with_parent,
        )  # fmt: skip

    def query(expression: str) -> list[Any]:
        asked = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{port}/api/v1/query?{asked}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            result: list[Any] = json.load(answer)["data"]["result"]
            return result

    try:
        until(lambda: query("vector(1)"), process, home / "log")
        yield query
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


def until(
    ask: Callable[[], Any], process: subprocess.Popen[bytes] | None = None, log: Path | None = None
) -> Any:
    """What `ask` gives as soon as that is something."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with contextlib.suppress(OSError):
            if answer := ask():
                return answer
        if (process and process.poll() is not None) or time.monotonic() > end:
            raise RuntimeError(f"no answer: {log.read_text()[-2000:] if log else ''}")
        time.sleep(0.1)


@contextlib.contextmanager
def pages(page: Callable[[], bytes], content_type: str) -> Iterator[int]:
    """An HTTP server that answers every request with a page; gives its port."""

    class Handler(_Quiet):
        def do_GET(self) -> None:
            self.answer(200, page(), content_type)

    with _serving(Handler) as port:
        yield port


class Collector:
    """What an OTLP receiver got. `status` is what it answers; `delay` is how long it takes."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.status, self.delay, self.port = 200, 0.0, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    """A receiver of OTLP over HTTP that parses what it gets."""
    kept = Collector()

    class Handler(_Quiet):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            time.sleep(kept.delay)
            if kept.status == 200:
                kept.requests.append(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.answer(kept.status, answer, "application/x-protobuf")

    with _serving(Handler) as kept.port:
        yield kept


class _Quiet(BaseHTTPRequestHandler):
    def answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
