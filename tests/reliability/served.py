"""A whole server over the toy decoder of `marked.py`, whose every token proves which prefix was attached.

    with home(database=..., blobs=...) as at:       a registry, a trust policy, a tenant with a key
        at.publish("acme/p1")
        with at.serving() as server:                in this process: gateway, engine, follower, sockets
            server.ask("acme/p1").right

`tests.reliability.served_alone` has the same as a process of its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
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
from tests.gateway.edge_server import running
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
        text = str(self.body["choices"][0]["text"])
        return {int(word[:4]) for word in text.split(".") if word}

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

    def ask_all(self, names: list[str], at_once: int = 16, **more: Any) -> list[Said]:
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda name: self.ask(name, **more), names))

    def status(self, path: str) -> int:
        return self.client.get(path).status_code

    def json(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(path).json()
        return found


@dataclass(frozen=True)
class Inside(Server):
    """A server in this process, which can be looked into."""

    house: House
    engine: Embedded


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
    markers: dict[str, int] = field(default_factory=dict)
    """By name: what a prefix forces; the last version's."""
    _published: int = 0

    def publish(self, name: str, *, release: bool = True) -> Digest:
        """One more version, with a marker of its own."""
        self._published += 1
        marker = FIRST + self._published
        version = f"1.0.{self._published}"
        made = marked_artifact(self.base, name, version, marker, LENGTH, COVERS)
        self.registry.publish(
            made.manifest_bytes, made.tensor_bytes, [signed(made, SIGNER)], policy=POLICY, by=by()
        )
        if release:
            self.registry.release(f"{name}@{version}", policy=POLICY, by=by())
            self.markers[name] = marker
        return made.digest

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


@contextlib.contextmanager
def home(**layout: str) -> Iterator[Home]:
    """A home with a registry that knows the toy; `layout` says where journal and blobs lie."""
    with scratch() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREWORD_HOME", str(directory))
        patch.delenv("FOREWORD_REGISTRY", raising=False)
        (directory / "trust.toml").write_bytes(POLICY.to_toml())
        init(Layout(directory / "registry", **layout))
        access = AccessStore(directory / "access")
        key, record = issue("acme", datetime.now(UTC))
        admin, operator = issue(OPERATOR, datetime.now(UTC))
        access.change(
            lambda t: t.with_tenant(Tenant("acme", base=True))
            .with_key(record)
            .with_key(operator),
            by=by(),
        )
        base = loaded_base()
        with Registry.open(directory / "registry") as registry:
            registry.declare_base(Base(replace(base.ref, id="toy"), base.geometry), by=by())
            yield Home(directory, base, registry, access, key, admin)
