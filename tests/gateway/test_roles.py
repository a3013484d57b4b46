"""Gateway and engine in two processes: the same answers as in one, and what happens when one is away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from foreword.artifact import BaseRef, Digest
from foreword.errors import CompatibilityError, ConfigError
from foreword.prefix.files import identify
from foreword.serving.server.gateway_alone import tokenizer_of
from foreword.serving.server.secret import VARIABLE, secret_of
from foreword.serving.server.settings import LinkSettings, ServeSettings, check
from tests.gateway.edge_server import until
from tests.gateway.served import NAME, Ground, Process, ask, by, free_port, save_model, serving
from tests.serving.prefix_samples import POLICY

CONTEXT = 16_000
"""Of a model whose answers can last."""
_NO_TORCH = ("torch", "torchgen", "functorch", "triton")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("long") / "model", context=CONTEXT)


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Our command, where everything is installed but torch."""
    site = tmp_path_factory.mktemp("site")
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if each.suffix != ".pth" and not each.name.split("-")[0].startswith(_NO_TORCH):
            (site / each.name).symlink_to(each)
    src = Path(__file__).parents[2] / "src"
    code = (
        f"import sys; sys.path[:0] = [{str(src)!r}, {str(site)!r}]\n"
        "from foreword.cli.main import main\n"
        "import importlib.util; assert importlib.util.find_spec('torch') is None\n"
        "main()"
    )
    return (sys.executable, "-S", "-c", code)


@contextmanager
def engine(model: Path, port: int) -> Iterator[Process]:
    with serving(model, "--role", "engine", port=port, ready="metrics and health") as started:
        yield started


@contextmanager
def gateway(tokenizer: Path, engine_port: int, command: tuple[str, ...]) -> Iterator[Process]:
    with serving(
        tokenizer, "--role", "gateway", "--engine", f"http://127.0.0.1:{engine_port}",
        command=command, ready="its engine is at",
    ) as started:  # fmt: skip
        yield started


def test_two_processes_answer_as_one_and_outlive_each_other(
    ground: Ground, model: Path, tmp_path: Path, without_torch: tuple[str, ...]
) -> None:
    one, two = ground.publish(1, "1.0.0"), ground.publish(2, "2.0.0")
    ground.registry.release(NAME + "@1.0.0", policy=POLICY, by=by())
    tokenizer = tmp_path / "tokenizer-only"
    shutil.copytree(model, tokenizer, ignore=shutil.ignore_patterns("*.safetensors"))
    port = free_port()
    with ExitStack() as opened:
        started = threading.Thread(target=lambda: opened.enter_context(engine(model, port)))
        started.start()  # beside the gateway, which waits for it
        front = opened.enter_context(gateway(tokenizer, port, without_torch))
        started.join(90)
        said = ask(front, ground)
        assert said.status_code == 200, said.text
        assert said.json()["foreword"]["digest"] == str(one)
        assert said.json()["foreword"]["base"] == str(ground.base.ref.fingerprint)
        assert _residents(front, ground) == {str(one)}
        _a_release_is_warm_before_it_answers(front, ground, str(two))
        assert ask(front, ground, str(Digest.of(b"?"))).json()["error"]["code"] == "model.not_found"
        lines = _while_a_stream_runs(front, ground, lambda: _kill(port))
        assert '"code":"engine.unreachable"' in lines[-2] or '"engine.unreachable"' in "".join(lines)
        assert "data: [DONE]" not in lines
        _without_its_engine(front, ground)
    with ExitStack() as opened:
        front = opened.enter_context(_again(front, tokenizer, port, without_torch, model, opened))
        assert ask(front, ground).json()["foreword"]["digest"] == str(two)


def _residents(front: Process, ground: Ground) -> set[str]:
    headers = {"Authorization": f"Bearer {ground.admin}"}
    until(lambda: front.running.poll() is None, 1)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        said = httpx2.get(f"{front.admin_url}/admin/residents", headers=headers).json()
        if said["residents"]:
            return {each["digest"] for each in said["residents"]}
        time.sleep(0.05)
    return set()
