"""Inspect (inspect-ai) asks a server through its OpenAI interface, as docs/gates.md shows it.

It lives in an environment of its own: FOREWORD_INSPECT names its `inspect` program.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.served import NAME, Ground, ask, by, serving
from tests.reliability.report import ROOT
from tests.serving.prefix_samples import POLICY

INPUTS = ("ab", "cd", "hello", "Is it late?")


@pytest.fixture
def program() -> str:
    named = os.environ.get("FOREWORD_INSPECT", "")
    if not shutil.which(named):
        pytest.skip("needs inspect-ai; FOREWORD_INSPECT names its `inspect` program")
    return named


def test_inspect_hears_what_everybody_hears(
    program: str, ground: Ground, model: Path, tmp_path: Path
) -> None:
    ground.publish(1, "1.0.0")
    ground.registry.release(NAME + "@1.0.0", policy=POLICY, by=by())
    (task,) = re.findall(
        r"```python\n(# tickets\.py\n.*?)```", (ROOT / "docs" / "gates.md").read_text(), re.DOTALL
    )
    (tmp_path / "tickets.py").write_text(task)
    with serving(model) as process:
        rows = [{"input": text, "target": _said(process, ground, text)} for text in INPUTS]
        rows.append({"input": "ef", "target": "what no answer is"})
        (tmp_path / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path),
            "FOREWORD_BASE_URL": f"{process.url}/v1", "FOREWORD_API_KEY": ground.key,
        }  # fmt: skip
        done = subprocess.run(
            [program, "eval", "tickets.py", "--model", f"openai-api/foreword/{NAME}",
             "--temperature", "0", "--max-tokens", "8", "--display", "none",
             "--log-format", "json", "--log-dir", "logs"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "logs").glob("*.json")
    told = json.loads(log.read_text())
    (score,) = told["results"]["scores"]
    assert told["status"] == "success"
    assert told["results"]["completed_samples"] == len(rows)
    # It heard what we heard, so all but the row whose target nobody says are right.
    assert score["metrics"]["mean"]["value"] == pytest.approx(len(INPUTS) / len(rows))


def _said(process: Any, ground: Ground, text: str) -> str:
    messages = [{"role": "user", "content": text}]
    answer = ask(process, ground, messages=messages, max_tokens=8, temperature=0).json()
    content: str = answer["choices"][0]["message"]["content"]
    return content
