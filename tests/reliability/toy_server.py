"""A whole server over the toy decoder of `marked.py`, whose every token proves which prefix was attached.

with home(database=..., blobs=...) as at:       a registry, a trust policy, a tenant with a key
    at.publish("acme/p1")
    with at.serving() as server:                in this process: gateway, engine, follower, sockets
        server.ask("acme/p1").right
    with at.process() as server:                the same as `foreword serve`
        server.ask("acme/p1").right
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest

from foreword.artifact import Digest
from foreword.prefix.base_model import BaseModel, load_base
from foreword.registry.entries import By
from foreword.registry.facts import Base
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from foreword.serving.gateway.access.keys import OPERATOR, issue
from foreword.serving.gateway.access.store import AccessStore
from foreword.serving.gateway.access.tenants import Tenant
from foreword.serving.gateway.edge import uvicorn_config
from foreword.serving.server.embedded import Embedded, Listeners, embedded
from foreword.serving.server.house import Behind, House, house
from foreword.serving.server.settings import ServeSettings
from foreword.serving.server.whole import model_of
from tests.gateway.edge_server import running, until
from tests.registry.scratch import scratch
from tests.reliability.marked import FIRST, marked_artifact, marked_base, spelling, token
from tests.serving.prefix_samples import POLICY, SIGNER
from tests.signing.made import signed

PROMPT = spelling(token(5, 0))
LENGTH, COVERS = 4, (0, 1)
PREFIX_BYTES = 2 * len(COVERS) * LENGTH * 16 * 4
"""Of one prefix on the device: keys and values of 16 floats in two layers."""
_PATIENCE = 120.0


def by(reason: str = "") -> By:
    return By("ana", datetime.now(UTC), reason)


@cache
def marked_directory() -> Path:
    """The toy decoder as files, for as long as this process lives."""
    directory = _kept.enter_context(scratch()) / "toy"
    made = marked_base()
    made.model.save_pretrained(directory)
    spoken = made.required_tokenizer()
    spoken.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    spoken.save_pretrained(directory)
    return directory


_kept = contextlib.ExitStack()


@cache
def loaded_base() -> BaseModel:
    return load_base(marked_directory())


def markers_of(text: str) -> set[int]:
    return {int(word[:4]) for word in text.split(".") if word}


@dataclass(frozen=True)
class Said:
    """What one request was told."""

    name: str
    status: int
    seconds: float
    body: dict[str, Any]
    headers: dict[str, str]
    wanted: int
    """The marker that its prefix forces."""

    @property
    def right(self) -> bool:
        """Answered, and by the prefix that was asked for."""
        return self.status == 200 and self.markers == {self.wanted}

    @property
    def wrong(self) -> bool:
        """Answered, but by something else: another prefix, or the bare model."""
        return self.status == 200 and not self.right

    @property
    def markers(self) -> set[int]:
        return markers_of(str(self.body["choices"][0]["text"]))

    @property
    def code(self) -> str:
        return "" if self.status == 200 else str(self.body["error"]["code"])

    @property
    def retry_after(self) -> float:
        """Seconds; infinite if it was not told."""
        return float(self.headers.get("retry-after", "inf"))


@dataclass(frozen=True)
class Server:
    """A running server and a client of it."""

    url: str
    key: str
    markers: dict[str, int]
    client: httpx2.Client

    def ask(self, name: str, tokens: int = 4, **more: Any) -> Said:
        began = time.monotonic()
        asked = {"model": name, "prompt": PROMPT, "max_tokens": tokens, **more}
        got = self.client.post("/v1/completions", json=asked)
        seconds = time.monotonic() - began
        wanted = self.markers[name.partition("@")[0]]
        return Said(name, got.status_code, seconds, got.json(), dict(got.headers), wanted)

    def ask_all(self, names: Sequence[str], at_once: int = 16, **more: Any) -> list[Said]:
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda name: self.ask(name, **more), names))

    def status(self, path: str) -> int:
        return self.client.get(path).status_code


@dataclass(frozen=True)
class Inside(Server):
    """A server in this process, which can be looked into."""

    house: House
    engine: Embedded


@dataclass(frozen=True)
class Process(Server):
    """`foreword serve`, as somebody starts it."""

    admin_url: str
    running: subprocess.Popen[str]
    lines: list[str]
    """What it said on stderr so far."""
    ready_in: float
    """Seconds from its start until `/readyz` said so."""

    def send(self, number: signal.Signals) -> int:
        """Its exit status, once it has ended."""
        self.running.send_signal(number)
        return self.running.wait(_PATIENCE)


@contextlib.contextmanager
def client_of(url: str, key: str) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
    with httpx2.Client(
        base_url=url, headers=headers, timeout=_PATIENCE, limits=limits, trust_env=False
    ) as client:
        yield client


@dataclass
class Home:
    """What a server needs on disk. `registry` is the operator's own way to it."""

    directory: Path
    base: BaseModel
    registry: Registry
    access: AccessStore
    key: str
    admin: str
    keys: dict[str, str]
    """By tenant; `key` is acme's."""
    markers: dict[str, int] = field(default_factory=dict)
    """By name: what a prefix forces; the released version's."""
    published: int = 0
    """Versions of all names so far; the last one is `1.0.N` and forces marker `FIRST + N`."""

    def publish(self, name: str, *, release: bool = True) -> Digest:
        """One more version, with a marker of its own."""
        self.published += 1
        marker = FIRST + self.published
        version = f"1.0.{self.published}"
        made = marked_artifact(self.base, name, version, marker, LENGTH, COVERS)
        self.registry.publish(
            made.manifest_bytes, made.tensor_bytes, [signed(made, SIGNER)], policy=POLICY, by=by()
        )
        if release:
            self.registry.release(f"{name}@{version}", policy=POLICY, by=by())
            self.markers[name] = marker
        return made.digest

    @contextlib.contextmanager
    def process(self, port: int, *options: str) -> Iterator[Process]:
        command = [
            sys.executable, "-c", "from foreword.cli.main import main; main()", "serve",
            "--base", str(marked_directory()), "--port", str(port), "--admin-port", "0",
            "--log", str(self.directory / "log.jsonl"), "--set", "embedded.kv_bytes=33554432", *options,
        ]  # fmt: skip
        environment = {**os.environ, "FOREWORD_HOME": str(self.directory), "OMP_NUM_THREADS": "1"}
        url, began = f"http://127.0.0.1:{port}", time.monotonic()
        with (
            client_of(url, self.key) as client,
            subprocess.Popen(
                command, stderr=subprocess.PIPE, text=True, env=environment
            ) as started,
        ):
            lines: list[str] = []
            reading = threading.Thread(
                target=lambda: lines.extend(started.stderr or ()), daemon=True
            )
            reading.start()
            try:
                until(lambda: _is_ready(client) or started.poll() is not None, _PATIENCE)
                ready_in = time.monotonic() - began
                until(lambda: "prefixes released" in "".join(lines), _PATIENCE)
                found = re.search(r"admin at (http\S+)", "".join(lines))
                admin = found.group(1) if found else ""
                yield Process(url, self.key, self.markers, client, admin, started, lines, ready_in)
            finally:
                started.kill()
                reading.join(5)

    @contextlib.contextmanager
    def serving(self, registry: Registry | None = None, **settings: Any) -> Iterator[Inside]:
        """`registry`: the server's own way to it, if that is another one than the operator's."""
        quiet = {"usage": False, "log": str(self.directory / "log.jsonl")}
        told = {"base": "toy", "telemetry": quiet, **settings}
        told["embedded"] = {"kv_bytes": 32 << 20, **told.get("embedded", {})}
        set_, place = ServeSettings(**told), self.directory / "serve"
        place.mkdir(exist_ok=True)
        own = registry or self.registry
        trust = self.directory / "trust.toml"
        with contextlib.ExitStack() as opened:
            engine = embedded(self.base, set_.embedded, own, trust, place, Listeners())
            opened.callback(engine.backend.close)
            behind = Behind(engine.backend, engine.backend, engine.backend.health)
            model = model_of(self.base)
            built = opened.enter_context(house(set_, self.access, own, model, behind, place))
            config = uvicorn_config(built.edge, host="127.0.0.1", port=0, grace=1)
            server, _ = opened.enter_context(running(config))
            url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
            client = opened.enter_context(client_of(url, self.key))
            yield Inside(url, self.key, self.markers, client, built, engine)


def _is_ready(client: httpx2.Client) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return client.get("/readyz").status_code == 200
    return False


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def home(*tenants: str, **layout: str) -> Iterator[Home]:
    """A home with a registry that knows the toy; `layout` says where journal and blobs lie."""
    with scratch() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREWORD_HOME", str(directory))
        patch.delenv("FOREWORD_REGISTRY", raising=False)
        (directory / "trust.toml").write_bytes(POLICY.to_toml())
        init(Layout(directory / "registry", **layout))
        access = AccessStore(directory / "gateway")
        keys: dict[str, str] = {}
        for tenant in tenants or ("acme",):
            keys[tenant], record = issue(tenant, datetime.now(UTC))
            made = Tenant(tenant, base=True)
            access.change(
                lambda t, made=made, record=record: t.with_tenant(made).with_key(record), by=by()
            )
        admin, operator = issue(OPERATOR, datetime.now(UTC))
        access.change(lambda t: t.with_key(operator), by=by())
        base = loaded_base()
        with Registry.open(directory / "registry") as registry:
            registry.declare_base(Base(replace(base.ref, id="toy"), base.geometry), by=by())
            yield Home(directory, base, registry, access, next(iter(keys.values())), admin, keys)
