"""Train, judge, sign, publish, release, serve: with real parts, and stopped where a verdict is missing."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from openai import OpenAI

from foreword.artifact import Artifact, open_artifact, pack, write_artifact
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.probe import make_probes, probe_inputs
from foreword.registry.entries import By
from foreword.registry.registry import Registry
from foreword.serving.gateway.access.keys import issue
from foreword.serving.gateway.access.store import AccessStore
from foreword.serving.gateway.access.tenants import Tenant
from foreword.signing.store import load_policy
from tests.evaluation.commands import Commands, write_policy, write_set
from tests.gateway.test_house import Process, serving
from tests.serving.prefix_samples import kv
from tests.tiny import shouting, tiny, tokenizer

NAME = "acme/loud"
LOUD = {"kind": "regex", "pattern": "^[A-Z]{2}"}
RECIPE = (
    "--set", "train.steps=100", "--set", "train.lr=0.1", "--set", "prefix.length=8", "--set", f"name={NAME}",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model that answers nonsense, rows to learn from, and rows to be judged by."""
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FOREWORD_REGISTRY", raising=False)
    tiny("llama").save_pretrained(tmp_path / "model")
    spoken = tokenizer()
    spoken.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    spoken.save_pretrained(tmp_path / "model")
    rows = shouting(160)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:100]))
    judged = [
        {"id": f"r{i}", "input": row["input"], "cohort": f"c{i % 2}", "checks": [LOUD]}
        for i, row in enumerate(rows[100:])
    ]
    write_set(tmp_path / "golden.jsonl", judged)
    asked = {"metric": "task_completion", "least": 0.5, "margin": 0.2}
    learned = {"metric": "task_completion", "least": 0.2, "loss": 0.5}
    write_policy(tmp_path / "gate.yaml", rules=[asked], learned=learned, gap={"loss": 3.0})
    write_policy(tmp_path / "strict.yaml", rules=[{"metric": "task_completion", "least": 1.1}])
    return tmp_path


def test_nothing_is_served_without_a_verdict(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, model, made = Commands(capsys), home / "model", home / "made"
    run.good("train", "--base", model, "--data", home / "rows.jsonl", "--out", made, *RECIPE)
    run.good("keys", "new", "ci")
    trust = home / "home" / "trust.toml"
    trust.write_text(trust.read_text() + '\n[tenants."acme"]\nrequire = ["evaluation"]\n')
    run.good("registry", "init", "--base", model)
    run.good("sign", made, "--key", "ci")

    refused = run("registry", "publish", made)
    assert (refused.code, "trust.attestation_missing" in refused.err) == (7, True), refused.err
    judge = (
        "--golden", home / "golden.jsonl", "--base", model, "--max-new-tokens", "3", "--metric",
        "same_answer", "--policy",
    )  # fmt: skip
    failed = run("gate", made, *judge, home / "strict.yaml", "--sign", "ci")
    assert (failed.code, failed.out.startswith("# FAIL")) == (10, True), failed.out
    refused = run("registry", "publish", made)
    assert (refused.code, "trust.attestation_verdict" in refused.err) == (7, True), refused.err

    time.sleep(1.1)  # of two words within one second the worse counts
    said = run("gate", made, *judge, home / "gate.yaml", "--sign", "ci", "--format", "json")
    verdict = json.loads(said.out)["verdict"]
    assert (said.code, verdict["outcome"]) == (0, "pass"), said.out[:3_000]
    assert verdict["subject"]["digest"] == str(open_artifact(made).digest)
    assert " answers" not in said.err, "those of the first gate were kept"
    run.good("registry", "publish", made)
    run.good("registry", "release", f"{NAME}@0.1.0")
    assert "evaluation pass" in run.good("registry", "why", NAME)
    _it_is_what_is_served(home, run)
    _a_worse_one_is_not_released(home, run)


def _it_is_what_is_served(home: Path, run: Commands) -> None:
    key, record = issue("acme", datetime.now(UTC))
    by = By("ana", datetime.now(UTC), "")
    AccessStore().change(lambda t: t.with_tenant(Tenant("acme")).with_key(record), by=by)
    digest = str(open_artifact(home / "made").digest)
    (home / "key").write_text(key)
    with serving(home / "model") as process:
        answer = _asked(process, key)
        assert answer.headers["x-foreword-digest"] == digest
        live = f"{process.url}/v1#{NAME}"
        told = run(
            "compare", home / "made", live, "--golden", home / "golden.jsonl", "--base", home / "model",
            "--key-file", home / "key", "--max-new-tokens", "3", "--metric", "exact_match",
            "--metric", "task_completion", "--format", "json",
        )  # fmt: skip
    assert told.code == 0, told.err
    (card,) = json.loads(told.out)["scorecards"]
    assert [variant["digest"] for variant in card["variants"]] == [digest, digest]
    differences = {each["difference"] for each in card["comparisons"]}
    assert differences == {0.0}, "the engine and the server answer the same"


def _asked(process: Process, key: str):  # type: ignore[no-untyped-def]
    client = OpenAI(base_url=f"{process.url}/v1", api_key=key, max_retries=0)
    messages = [{"role": "user", "content": "ab1"}]
    return client.chat.completions.with_raw_response.create(
        model=NAME,
        messages=messages,
        max_tokens=3,  # type: ignore[arg-type]
    )


def _a_worse_one_is_not_released(home: Path, run: Commands) -> None:
    """Keys and values of noise; what is released is found by itself and compared with."""
    worse, model = home / "worse", home / "model"
    write_artifact(_noise(open_artifact(home / "made"), load_base(model)), worse)
    run.good("sign", worse, "--key", "ci")
    done = run(
        "gate", worse, "--golden", home / "golden.jsonl", "--base", model, "--max-new-tokens", "3",
        "--policy", home / "gate.yaml", "--sign", "ci", "--metric", "task_completion",
    )  # fmt: skip
    assert done.code == 10, done.out
    assert "within 0.2 of the incumbent" in done.out
    assert run("registry", "publish", worse).code == 7
    with Registry.open() as registry:
        stable = registry.show(NAME).release
        assert stable is not None
        fetched = registry.fetch(stable.stable, load_policy(), datetime.now(UTC))
    (attested,) = [a for a in fetched.attestations if a.finding.verdict == "pass"]
    assert attested.finding.body["policy"].startswith("sha256:")
    assert attested.finding.body["rates"]["false_fail"]["rate"] <= 0.05


def _noise(good: Artifact, base: BaseModel) -> Artifact:
    known, prefix = good.manifest, kv(base, 1)
    return pack(
        name=known.name, version="0.2.0", created=known.created, base=known.base,
        geometry=prefix.geometry, length=prefix.length, dtype="float32", prompt=known.prompt,
        training=known.training, probes=make_probes(base, prefix, probe_inputs(base)),
        tensors=prefix.to_bytes(),
    )  # fmt: skip
