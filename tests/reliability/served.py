"""`foreword serve` on the counting model, in a process of its own that also tells what is inside it.

    python -m tests.reliability.served serve --base ...

Each line on its input asks for something and has one line as its answer; its end ends the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from foreword.artifact import PromptFormat, pack
from foreword.registry.entries import By
from foreword.registry.facts import Base
from tests.gateway.edge_server import Client, until
from tests.registry.scratch import scratch
from tests.reliability.report import ROOT

NAMES = ("acme/one", "acme/two", "acme/three")
SETTINGS = (
    "embedded.most_running=128", "embedded.waiting=2000", "embedded.waiting_per_tenant=2000",
    "embedded.prompt_cache_bytes=0", "edge.stall_seconds=1",
)  # fmt: skip


@dataclass
class Inside:
    """What a client cannot see, as numbers; at rest they are what they were before."""

    aborts: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    prompts: dict[str, int] = field(default_factory=dict)
    """Last token of the prompt, by the engine's name of a request."""
    made: dict[str, Any] = field(default_factory=dict)
    other: Any = None
    """What `blind` has put aside."""

    def watch(self) -> None:
        """Note when the front gives a request up, and when the engine does."""
        from foreword.serving.engine.backend import EmbeddedBackend
        from foreword.serving.engine.engine import Engine
        from foreword.serving.gateway.edge import Edge
        from foreword.serving.gateway.front import Front

        for kind in (Edge, Front, EmbeddedBackend):
            _remember(kind, self.made)
        run = asyncio.run

        def noting(coroutine: Any, **more: Any) -> Any:
            async def noted() -> Any:
                self.made["loop"] = asyncio.get_running_loop()
                return await coroutine

            return run(noted(), **more)

        asyncio.run = noting  # type: ignore[assignment]
        submit, step, cancel, give_up = (
            Engine.submit, Engine.step, Engine.cancel, EmbeddedBackend.cancel
        )  # fmt: skip
        noticed: dict[str, tuple[float, int]] = {}

        def submitted(engine: Engine, request: Any, now: float) -> Any:
            self.prompts[request.id] = request.prompt[-1]
            return submit(engine, request, now)

        def stepped(engine: Engine, now: float) -> Any:
            self.steps += 1
            return step(engine, now)

        def given_up(backend: EmbeddedBackend, name: str) -> None:
            noticed[name] = (time.monotonic(), self.steps)
            give_up(backend, name)

        def cancelled(engine: Engine, name: str) -> Any:
            when, steps = noticed.get(name, (float("nan"), self.steps))
            self.aborts.append({"start": self.prompts.get(name), "noticed": when,
                                "done": time.monotonic(), "steps": self.steps - steps})  # fmt: skip
            return cancel(engine, name)

        Engine.submit, Engine.step, Engine.cancel = submitted, stepped, cancelled  # type: ignore[assignment,method-assign]
        EmbeddedBackend.cancel = given_up  # type: ignore[method-assign]

    def facts(self) -> dict[str, Any]:
        edge, front, backend = (self.made[name] for name in ("Edge", "Front", "EmbeddedBackend"))
        capacity, process = backend.capacity(), psutil.Process()
        rest = {
            "running": capacity.running, "waiting": capacity.waiting, "kv_bytes": capacity.kv_bytes,
            "rows": sum(len(arena.rows) for arena in backend._engine._pool.arenas.values()),
            "pins": sum(each.pins for each in backend.residents()), "inside": edge.gate.inside,
            "bodies": edge.bodies.room.used, "tenants": sum(edge.overload.inside.values()),
            "front": len(front.running), "streams": front.quotas.streams,
            "tasks": len(asyncio.all_tasks(self.made["loop"])), "listeners": len(backend._streams),
            "descriptors": process.num_fds(),
        }  # fmt: skip
        return {"rest": rest, "aborts": self.aborts, "rss": process.memory_info().rss}

    def heart(self) -> dict[str, Any]:
        health = self.made["EmbeddedBackend"].health()
        since = float("inf") if health.last_step is None else time.monotonic() - health.last_step
        return {"state": health.state, "since": since}

    def blind(self) -> dict[str, Any]:
        """Until the next time nobody looks whether a client is there: a fault, to be found out."""
        from foreword.serving.gateway.edge.presence import _Request

        async def watch(request: _Request, receive: Any) -> None:
            await asyncio.Event().wait()

        _Request.watch, self.other = self.other or watch, _Request.watch  # type: ignore[method-assign]
        return {}


def _remember(kind: type, made: dict[str, Any]) -> None:
    """Keep the one of its kind in this process, once it is made."""
    init = kind.__init__  # type: ignore[misc]

    def remembering(one: Any, *args: Any, **more: Any) -> None:
        init(one, *args, **more)
        made[kind.__name__] = one

    kind.__init__ = remembering  # type: ignore[misc]


def _answer(inside: Inside) -> None:
    words = {"facts": inside.facts, "heart": inside.heart, "blind": inside.blind}
    try:
        for line in sys.stdin:
            print(json.dumps(words[line.strip()]()), flush=True)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    inside = Inside()
    inside.watch()
    threading.Thread(target=_answer, args=(inside,), daemon=True).start()
    from foreword.cli.main import main as foreword

    foreword()


@dataclass
class Served(Client):
    key: str
    admin_key: str
    admin_port: int
    process: subprocess.Popen[str]
    home: Path
    digests: dict[str, str]
    """What answers, by name of the model."""

    @property
    def authorized(self) -> str:
        return f"Authorization: Bearer {self.key}"

    def ask_inside(self, word: str) -> dict[str, Any]:
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("it was asked for both")
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        return said

    def facts(self) -> dict[str, Any]:
        return self.ask_inside("facts")

    def alive(self) -> bool:
        """An idle engine beats twice a second."""
        heart = self.ask_inside("heart")
        return heart["state"] == "ready" and heart["since"] < 5

    def rest(self) -> dict[str, int]:
        rest: dict[str, int] = self.facts()["rest"]
        return rest

    @property
    def said(self) -> str:
        """Everything it told whoever started it."""
        return (self.home / "stderr").read_text()


@contextlib.contextmanager
def served() -> Iterator[Served]:
    """The server with three prefixes, until the end of the block."""
    with scratch() as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREWORD_HOME", str(home))
        patch.delenv("FOREWORD_REGISTRY", raising=False)
        key, admin_key, digests = _furnish(home)
        command = [sys.executable, "-m", "tests.reliability.served", "serve",
                   "--base", str(home / "model"), "--port", "0", "--admin-port", "0",
                   "--log", str(home / "log.jsonl")]  # fmt: skip
        command += [word for setting in SETTINGS for word in ("--set", setting)]
        with (home / "stderr").open("w") as said, subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        ) as process:  # fmt: skip
            try:
                yield _started(process, home, key, admin_key, digests)
            finally:
                if process.stdin is not None:
                    process.stdin.close()
                try:
                    process.wait(30)
                finally:
                    process.kill()


def _started(
    process: subprocess.Popen[str], home: Path, key: str, admin_key: str, digests: dict[str, str]
) -> Served:
    told = home / "stderr"
    until(lambda: "released" in told.read_text() or process.poll() is not None, 180)
    ports = [int(line.split("127.0.0.1:")[1].split("/")[0])
             for line in told.read_text().splitlines() if "127.0.0.1:" in line]  # fmt: skip
    if len(ports) != 2:
        raise RuntimeError(told.read_text())
    return Served(ports[0], key, admin_key, ports[1], process, home, digests)


def _furnish(home: Path) -> tuple[str, str, dict[str, str]]:
    """Model, policy, registry with releases, tenants and keys."""
    from foreword.prefix.base_model import load_base
    from foreword.registry.layout import Layout, init
    from foreword.registry.registry import Registry
    from foreword.serving.gateway.access.keys import OPERATOR, issue
    from foreword.serving.gateway.access.store import AccessStore
    from foreword.serving.gateway.access.tenants import Tenant
    from tests.reliability.counting import save_counting_model
    from tests.serving.prefix_samples import POLICY, SIGNER, kv
    from tests.signing.made import signed

    save_counting_model(home / "model")
    (home / "trust.toml").write_bytes(POLICY.to_toml())
    base = load_base(home / "model")
    init(Layout(home / "registry"))
    key, record = issue("acme", datetime.now(UTC))
    admin_key, operator = issue(OPERATOR, datetime.now(UTC))
    tenant = Tenant("acme", base=True)
    AccessStore().change(
        lambda table: table.with_tenant(tenant).with_key(record).with_key(operator), by=_by()
    )
    ref, digests = replace(base.ref, id="counting"), {"base": ""}
    with Registry.open() as registry:
        registry.declare_base(Base(ref, base.geometry), by=_by())
        for number, name in enumerate(NAMES):
            prefix = kv(base, number)
            made = pack(
                name=name, version="1.0.0", created="2026-01-31T12:00:00Z", base=ref,
                geometry=prefix.geometry, length=prefix.length, dtype="float32",
                prompt=PromptFormat("template", "{input}"), training={}, probes=(),
                tensors=prefix.to_bytes(),
            )  # fmt: skip
            registry.publish(made.manifest_bytes, made.tensor_bytes, [signed(made, SIGNER)],
                             policy=POLICY, by=_by())  # fmt: skip
            registry.release(f"{name}@1.0.0", policy=POLICY, by=_by())
            digests[name] = str(made.digest)
    return key, admin_key, digests


def _by() -> By:
    return By("ana", datetime.now(UTC), "")


if __name__ == "__main__":
    main()
