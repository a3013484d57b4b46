"""A home with many tenants, each with prefixes and a key of its own, and `foreword serve` in front of it."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import string
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foreword.artifact import Digest, PromptFormat, pack
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.probe import make_probes, probe_inputs
from foreword.registry.entries import By
from foreword.registry.facts import Base
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from foreword.serving.gateway.access.keys import issue
from foreword.serving.gateway.access.kills import Kill
from foreword.serving.gateway.access.store import AccessStore
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import Tenant
from tests.gateway.edge_server import until
from tests.reliability.report import ROOT
from tests.serving.prefix_samples import POLICY, SIGNER, kv
from tests.signing.made import signed
from tests.tiny import tiny, tokenizer

STATES = ("retired", "revoked", "killed", "canary", "unreleased")
"""What is the matter with each tenant's second prefix."""


@dataclass(frozen=True)
class Resident:
    """A tenant, its key, and what it has."""

    name: str
    key: str
    own: str
    """Released as `own@1.0.0`, which also has the alias `prod`."""
    digest: Digest
    state: str
    """Another prefix, of which something is the matter."""
    prompt: str
    """A text that is long enough to be stored, and that only this tenant sends."""

    @property
    def marks(self) -> tuple[str, ...]:
        """Texts that nobody else may come to see."""
        return f"{self.name}/", self.digest.hex, self.prompt


@dataclass
class Town:
    """All of them, in a directory that is a FOREWORD_HOME."""

    home: Path
    model: Path
    tenants: list[Resident] = field(default_factory=list)


def by(reason: str = "") -> By:
    return By("ana", datetime.now(UTC), reason)


def build(home: Path, count: int) -> Town:
    """`count` tenants on a random model."""
    town = Town(home, home / "model")
    tiny("llama").save_pretrained(town.model)
    spoken = tokenizer()
    spoken.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    spoken.save_pretrained(town.model)
    base = load_base(town.model)
    (home / "trust.toml").write_bytes(POLICY.to_toml())
    init(Layout(home / "registry"))
    access = AccessTable()
    with Registry.open(home / "registry") as registry:
        registry.declare_base(Base(replace(base.ref, id="tiny"), base.geometry), by=by())
        for number in range(count):
            access = _move_in(town, registry, base, access, number)
    AccessStore(home / "gateway").change(lambda _: access, by())
    return town


def _move_in(
    town: Town, registry: Registry, base: BaseModel, access: AccessTable, number: int
) -> AccessTable:
    name, rng = f"t{number:02}", random.Random(number)
    own, state = f"{name}/own", f"{name}/state"
    digest = _publish(registry, base, own, 2 * number + 1)
    registry.release(f"{own}@1.0.0", policy=POLICY, by=by())
    registry.alias("prod", f"{own}@1.0.0", by=by())
    _publish(registry, base, state, 2 * number + 2)
    access = _trouble(registry, base, access, state, number)
    key, record = issue(name, datetime.now(UTC))
    prompt = "".join(rng.choices(string.ascii_letters, k=40))
    town.tenants.append(Resident(name, key, own, digest, state, prompt))
    return access.with_tenant(Tenant(name, base=True)).with_key(record)


def _trouble(
    registry: Registry, base: BaseModel, access: AccessTable, name: str, number: int
) -> AccessTable:
    kind = STATES[number % len(STATES)]
    if kind == "unreleased":
        return access
    registry.release(f"{name}@1.0.0", policy=POLICY, by=by())
    if kind == "killed":
        return access.with_kill(name, Kill("it hurts", "ana", datetime.now(UTC)))
    _publish(registry, base, name, 1_000 + number, "2.0.0")
    registry.release(f"{name}@2.0.0", 0.5 if kind == "canary" else 1.0, policy=POLICY, by=by())
    if kind == "revoked":
        registry.revoke(f"{name}@1.0.0", by=by("it hurts"))
    if kind == "retired":
        registry.retire(f"{name}@1.0.0", by=by())
    return access


def _publish(
    registry: Registry, base: BaseModel, name: str, number: int, version: str = "1.0.0"
) -> Digest:
    prefix = kv(base, number)
    made = pack(
        name=name, version=version, created="2026-01-31T12:00:00Z", base=replace(base.ref, id="tiny"),
        geometry=prefix.geometry, length=prefix.length, dtype="float32",
        prompt=PromptFormat("template", "{input}\n"), training={},
        probes=make_probes(base, prefix, probe_inputs(base)), tensors=prefix.to_bytes(),
    )  # fmt: skip
    registry.publish(
        made.manifest_bytes, made.tensor_bytes, [signed(made, SIGNER)], policy=POLICY, by=by()
    )
    return made.digest


@dataclass
class Server:
    port: int
    admin_port: int
    log: Path

    def caller(self, who: Resident, port: int | None = None) -> Caller:
        return Caller(port or self.port, who.key)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def serving(town: Town, *leaks: str, settings: Sequence[str] = ()) -> Iterator[Server]:
    """The real command in a process of its own, or with leaks (leaks.py) that are to be found."""
    name = "-".join(leaks) or "sound"
    log, said = town.home / f"{name}.log", town.home / f"{name}.err"
    command = [sys.executable, "-m", "tests.reliability.leaks", ",".join(leaks) or "none"]
    options = [
        "serve", "--base", str(town.model), "--port", "0", "--admin-port", "0", "--log", str(log),
        *(word for each in ("embedded.kv_bytes=20000000", *settings) for word in ("--set", each)),
    ]  # fmt: skip
    given = {"FOREWORD_HOME": str(town.home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with said.open("w") as errors, subprocess.Popen(
        [*command, *options], stderr=errors, cwd=ROOT, env={**os.environ, **given}
    ) as process:  # fmt: skip
        try:
            until(lambda: "released" in said.read_text() or process.poll() is not None, 180)
            ports = re.findall(r"http://127\.0\.0\.1:(\d+)", said.read_text())
            if len(ports) != 2:
                raise RuntimeError(said.read_text())
            yield Server(int(ports[0]), int(ports[1]), log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@dataclass(frozen=True)
class Said:
    """An answer."""

    status: int
    headers: dict[str, str]
    text: str
    seconds: float
    """From the request to the answer's head."""

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Caller:
    """One tenant's connection."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._authorized = {"Authorization": f"Bearer {key}"}

    def ask(self, path: str, body: object = None, **headers: str) -> Said:
        """POST if there is a body, else GET."""
        data = None if body is None else json.dumps(body).encode()
        sent = {**self._authorized, **headers}
        if data is not None:
            sent["Content-Type"] = "application/json"
        for last in (False, True):
            try:
                return self._once("GET" if data is None else "POST", path, data, sent)
            except (http.client.HTTPException, ConnectionError):
                self._connection.close()  # it was idle for too long
                if last:
                    raise
        raise AssertionError

    def _once(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Said:
        began = time.perf_counter()
        self._connection.request(method, path, data, headers)
        answer = self._connection.getresponse()
        seconds = time.perf_counter() - began
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Said(answer.status, found, answer.read().decode(), seconds)
