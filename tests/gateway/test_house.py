"""Everything a server is made of, for real: registry, trust, follower, engine, keys, telemetry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from foreword.artifact import Digest
from tests.gateway.edge_server import until
from tests.gateway.served import FOREWORD, NAME, Ground, Process, ask, by, serving
from tests.serving.prefix_samples import POLICY


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
