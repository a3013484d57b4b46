"""Everything a server is made of, for real: registry, trust, follower, engine, keys, telemetry."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny") / "model"
    tiny("llama").save_pretrained(directory)
    spoken = tokenizer()
    spoken.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    spoken.save_pretrained(directory)
    return directory


@pytest.fixture
def ground(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path))
    monkeypatch.delenv("FOREWORD_REGISTRY", raising=False)
    (tmp_path / "trust.toml").write_bytes(POLICY.to_toml())
    base = load_base(model)
    init(Layout(tmp_path / "registry"))
    access = AccessStore()
    key, record = issue("acme", datetime.now(UTC))
    admin, operator = issue(OPERATOR, datetime.now(UTC))
    access.change(
        lambda t: t.with_tenant(Tenant("acme", base=True)).with_key(record).with_key(operator),
        by=by(),
    )
    with Registry.open() as registry:
        registry.declare_base(Base(replace(base.ref, id="tiny"), base.geometry), by=by())
        yield Ground(tmp_path, base, registry, access, key, admin)


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


@contextmanager
def serving(model: Path, *options: str) -> Iterator[Process]:
    command = [
        *FOREWORD, "serve", "--base", str(model),
        "--port", str(free_port()), "--admin-port", "0", "--set", "embedded.kv_bytes=10000000",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env=environment
    ) as started:
        lines: list[str] = []
        reading = threading.Thread(target=lambda: lines.extend(_each(started)), daemon=True)
        reading.start()
        try:
            until(lambda: "prefixes released" in "".join(lines) or started.poll() is not None, 60)
            urls = re.findall(r"http://127[0-9.:]+", "".join(lines))
            assert len(urls) == 2, lines
            yield Process(started, *urls, lines)
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


def test_a_server_from_its_start_to_its_end(ground: Ground, model: Path) -> None:
    one, two = ground.publish(1, "1.0.0"), ground.publish(2, "2.0.0")
    ground.registry.release(NAME + "@1.0.0", policy=POLICY, by=by())
    with serving(model, "--log", str(ground.home / "log.jsonl")) as process:
        first = ask(process, ground)
        assert first.status_code == 200, first.text
        assert first.json()["foreword"]["digest"] == str(one) == first.headers["x-foreword-digest"]
        assert first.json()["usage"]["prompt_tokens"] == 3  # "ab" and the template's line break
        _a_release_takes_effect(process, ground, two)
        _the_prefix_counts(process, ground)
        _a_revoked_version_is_refused(process, ground, two)
        _the_operator_sees_it(process, ground)
        _a_stream_is_let_out(process, ground)
    told = [json.loads(line) for line in (ground.home / "log.jsonl").read_text().splitlines()]
    finished = [each for each in told if each["event"] == "request.finished"]
    assert finished[0]["attached"]["digest"] == str(one)
    assert ground.key not in (ground.home / "log.jsonl").read_text()


def _a_release_takes_effect(process: Process, ground: Ground, two: Digest) -> None:
    ground.registry.release(NAME + "@2.0.0", policy=POLICY, by=by())
    began = time.monotonic()
    until(lambda: ask(process, ground).json()["foreword"]["digest"] == str(two), 5)
    assert time.monotonic() - began < 2


def _the_prefix_counts(process: Process, ground: Ground) -> None:
    # 64 positions: 4 of the prefix, 3 of the prompt.
    assert ask(process, ground, max_tokens=57, ignore_eos=True).status_code == 200
    refused = ask(process, ground, max_tokens=58)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context.too_long")


def _a_revoked_version_is_refused(process: Process, ground: Ground, two: Digest) -> None:
    ground.registry.revoke(NAME + "@2.0.0", by=by("it hurts"))
    until(lambda: ask(process, ground, str(two)).status_code != 200, 5)
    assert ask(process, ground, str(two)).json()["error"]["code"] == "prefix.revoked"
    assert ask(process, ground).json()["foreword"]["version"] == "1.0.0"


def _the_operator_sees_it(process: Process, ground: Ground) -> None:
    assert f'prefix="{NAME}' in httpx2.get(f"{process.admin_url}/metrics").text
    ready = httpx2.get(f"{process.admin_url}/readyz")
    assert ready.status_code == 200
    assert {"engine", "releases", "access"} <= set(ready.json()["parts"])
    assert httpx2.get(f"{process.admin_url}/admin/residents").status_code == 401
    admin = {"Authorization": f"Bearer {ground.admin}"}
    seen = httpx2.get(f"{process.admin_url}/admin/residents", headers=admin)
    assert seen.status_code == 200, seen.text


def _a_stream_is_let_out(process: Process, ground: Ground) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": "ab"}], "stream": True,
            "ignore_eos": True}  # fmt: skip
    headers = {"Authorization": f"Bearer {ground.key}"}
    with httpx2.stream(
        "POST", f"{process.url}/v1/chat/completions", json=body, headers=headers, timeout=20
    ) as got:
        lines = got.iter_lines()
        next(lines)
        process.running.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert "data: [DONE]" in rest
    assert process.running.wait(20) == 0
    assert any("stopping" in line for line in process.lines)


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ground: Ground, model: Path
) -> None:
    for name, change, code in (
        ("keys", lambda home: (home / "gateway" / "access.json").unlink(), "access.missing"),
        (
            "registry",
            lambda home: (home / "registry" / "registry.toml").unlink(),
            "registry.missing",
        ),
        ("trust", lambda home: (home / "trust.toml").unlink(), "trust.policy_missing"),
    ):
        _refused(name, change, code, ground, model)


def _refused(
    name: str, change: Callable[[Path], None], code: str, ground: Ground, model: Path
) -> None:
    from shutil import copytree

    home = ground.home.with_name(f"{ground.home.name}-{name}")
    copytree(ground.home, home)
    change(home)
    done = subprocess.run(
        [*FOREWORD, "serve", "--base", str(model), "--port", "0"],
        env={**os.environ, "FOREWORD_HOME": str(home)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.startswith(f"error[{code}]"), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_open_is_for_this_machine_only(model: Path, ground: Ground) -> None:
    done = subprocess.run(
        [*FOREWORD, "serve", "--open", "--host", "0.0.0.0"],  # noqa: S104
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stderr.startswith("error[serve.open]"), done.stderr
