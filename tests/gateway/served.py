"""`foreword serve` as a process of its own, on a home with a tiny model, a registry, a policy and keys."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from openai import OpenAI

from foreword.artifact import Artifact, Digest, PromptFormat, pack
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.probe import make_probes, probe_inputs
from foreword.registry.entries import By
from foreword.registry.facts import Base
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from foreword.serving.gateway.access.keys import OPERATOR, issue
from foreword.serving.gateway.access.store import AccessStore
from foreword.serving.gateway.access.tenants import Tenant
from tests.gateway.edge_server import until
from tests.serving.prefix_samples import POLICY, SIGNER, kv
from tests.signing.made import signed
from tests.tiny import tiny, tokenizer

NAME = "acme/support"
FOREWORD = (sys.executable, "-c", "from foreword.cli.main import main; main()")


def by(reason: str = "") -> By:
    return By("ana", datetime.now(UTC), reason)


@dataclass
class Ground:
    """A home with a tiny model, a trust policy, a registry with two versions, and keys."""

    home: Path
    base: BaseModel
    registry: Registry
    access: AccessStore
    key: str
    admin: str

    def artifact(self, number: int, version: str) -> Artifact:
        prefix = kv(self.base, number)
        return pack(
            name=NAME, version=version, created="2026-01-31T12:00:00Z",
            base=replace(self.base.ref, id="tiny"),
            geometry=prefix.geometry, length=prefix.length, dtype="float32",
            prompt=PromptFormat("template", "{input}\n"), training={},
            probes=make_probes(self.base, prefix, probe_inputs(self.base)),
            tensors=prefix.to_bytes(),
        )  # fmt: skip

    def publish(self, number: int, version: str) -> Digest:
        made = self.artifact(number, version)
        self.registry.publish(
            made.manifest_bytes, made.tensor_bytes, [signed(made, SIGNER)], policy=POLICY, by=by()
        )
        return made.digest


CHAT = "{% for m in messages %}{{ m.content }}{% endfor %}"


def save_model(directory: Path, *, context: int = 64, seed: int = 0, chat: str = CHAT) -> Path:
    """A random model in files, with the character tokenizer; more context, longer answers."""
    made = tiny("llama", seed)
    made.config.max_position_embeddings = context
    made.save_pretrained(directory)
    spoken = tokenizer()
    spoken.chat_template = chat
    spoken.save_pretrained(directory)
    return directory


@contextmanager
def home_at(home: Path, model: Path) -> Iterator[Ground]:
    """A home; FOREWORD_HOME has to name it already."""
    (home / "trust.toml").write_bytes(POLICY.to_toml())
    base = load_base(model)
    init(Layout(home / "registry"))
    access = AccessStore()
    key, record = issue("acme", datetime.now(UTC))
    admin, operator = issue(OPERATOR, datetime.now(UTC))
    access.change(
        lambda t: t.with_tenant(Tenant("acme", base=True)).with_key(record).with_key(operator),
        by=by(),
    )
    with Registry.open() as registry:
        registry.declare_base(Base(replace(base.ref, id="tiny"), base.geometry), by=by())
        yield Ground(home, base, registry, access, key, admin)


@dataclass
class Process:
    """`foreword serve`, as somebody starts it."""

    running: subprocess.Popen[str]
    url: str
    admin_url: str
    lines: list[str]

    def client(self, key: str) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def end(self) -> int:
        self.running.send_signal(signal.SIGTERM)
        return self.running.wait(20)


READY = "prefixes released"


@contextmanager
def serving(
    model: Path,
    *options: str,
    port: int = 0,
    ready: str = READY,
    urls: int = 2,
    environment: Mapping[str, str] | None = None,
    command: tuple[str, ...] = FOREWORD,
) -> Iterator[Process]:
    """A server that says that it is ready; killed at the end if it is still there."""
    whole = [
        *command, "serve", "--base", str(model), "--port", str(port or free_port()),
        "--admin-port", "0", "--set", "embedded.kv_bytes=10000000",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    with subprocess.Popen(
        [*whole, *options], stderr=subprocess.PIPE, text=True, env=environment
    ) as started:
        lines: list[str] = []
        reading = threading.Thread(target=lambda: lines.extend(_each(started)), daemon=True)
        reading.start()
        try:
            until(lambda: ready in "".join(lines) or started.poll() is not None, 90)
            found = re.findall(r"at (http://127[0-9.:]+)", "".join(lines))
            assert len(found) >= urls, lines
            yield Process(started, found[0], found[1] if urls == 2 else "", lines)
        finally:
            started.kill()
            reading.join(5)


def _each(started: subprocess.Popen[str]) -> Iterator[str]:
    assert started.stderr is not None
    yield from started.stderr


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def ask(process: Process, ground: Ground, model: str = NAME, **more: Any) -> Any:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "ab"}],
        "max_tokens": 3,
        **more,
    }
    headers = {"Authorization": f"Bearer {ground.key}"}
    return httpx2.post(f"{process.url}/v1/chat/completions", json=body, headers=headers, timeout=20)


@contextmanager
def streaming(
    process: Process, ground: Ground, model: str = NAME, **more: Any
) -> Iterator[Iterator[str]]:
    """The lines of an answer that goes on to `max_tokens`."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "ab"}],
        "stream": True,
        "ignore_eos": True,
        **more,
    }
    headers = {"Authorization": f"Bearer {ground.key}"}
    with httpx2.stream(
        "POST", f"{process.url}/v1/chat/completions", json=body, headers=headers, timeout=60
    ) as got:
        assert got.status_code == 200, got.read()
        yield got.iter_lines()
