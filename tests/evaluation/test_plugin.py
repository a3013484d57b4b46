"""The pytest plugin, in a pytest of its own: a test that passes, one that fails, a mistake in the mark."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from foreword.artifact import write_artifact
from foreword.prefix.base_model import load_base
from tests.evaluation.commands import write_policy, write_set
from tests.evaluation.servers import Reply, said, serving
from tests.serving import prefix_samples
from tests.tiny import tiny, tokenizer

PLUGIN = "foreword.evaluation.pytest_plugin"
ROWS = [{"id": f"r{i}", "input": f"ab{i}", "references": ["yes"]} for i in range(40)]
ENGINE = """
import pytest

@pytest.mark.golden("golden.jsonl", prefix="made", policy="lenient.yaml", max_new_tokens=2)
def test_good(golden_verdict, golden_scorecards):
    assert golden_verdict.passed, golden_verdict.to_markdown()
    assert golden_scorecards[0].rows == 40

@pytest.mark.golden("golden.jsonl", prefix="made", policy="strict.yaml", max_new_tokens=2)
def test_bad(golden_verdict):
    assert golden_verdict.passed, golden_verdict.to_markdown()

@pytest.mark.golden("golden.jsonl", prefx="made")
def test_mistake(golden_evaluations):
    pass
"""
ENDPOINT = """
import sys
import pytest

@pytest.mark.golden("golden.jsonl", prefix="acme/p1", policy="right.yaml")
def test_live(golden_verdict):
    assert golden_verdict.passed, golden_verdict.to_markdown()
    assert "torch" not in sys.modules
"""
LIGHT = """
import sys

def test_nothing_is_imported():
    assert not [n for n in ("torch", "transformers", "numpy", "yaml", "pydantic") if n in sys.modules]
"""


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A pytest of its own; the plugin is named where it is not installed as an entry point."""
    installed = any(each.value == PLUGIN for each in entry_points(group="pytest11"))
    named = [] if installed else ["-p", PLUGIN]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *named, *words], capture_output=True, text=True,
        cwd=place, timeout=120, env={**os.environ, "PYTEST_ADDOPTS": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_a_golden_test_passes_fails_or_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    base = tmp_path / "base"
    tiny("llama").save_pretrained(base)
    tokenizer().save_pretrained(base)
    write_artifact(prefix_samples.artifact(load_base(base), 1, probed=True), tmp_path / "made")
    write_set(tmp_path / "golden.jsonl", ROWS, name="acme/p1", specialty="p1")
    write_policy(tmp_path / "lenient.yaml", rules=[{"metric": "empty", "margin": 1.5}])
    write_policy(tmp_path / "strict.yaml", rules=[{"metric": "exact_match", "least": 0.5}])
    (tmp_path / "test_it.py").write_text(ENGINE)
    done = run(tmp_path, "--golden-base", str(base), "--golden-answers", str(tmp_path / "kept"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed, 1 error" in done.stdout
    assert "# FAIL: acme/p1 1.0.0: fail" in done.stdout
    assert "needs @pytest.mark.golden" in done.stdout
    assert len(list((tmp_path / "kept").glob("*.jsonl"))) == 2, "base and candidate, asked once"


def test_it_judges_an_endpoint_and_costs_others_nothing(tmp_path: Path) -> None:
    write_set(tmp_path / "golden.jsonl", ROWS, name="acme/p1", specialty="p1")
    write_policy(tmp_path / "right.yaml", rules=[{"metric": "exact_match", "least": 0.5}])
    (tmp_path / "test_light.py").write_text(LIGHT)
    (tmp_path / "test_live.py").write_text(ENDPOINT)

    def answer(body: dict[str, object], headers: dict[str, str]) -> Reply:
        return said("yes" if body["model"] == "acme/p1" else "no")

    with serving(answer) as url:
        done = run(tmp_path, "--golden-url", url, "test_light.py", "test_live.py")
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done.stdout + done.stderr
