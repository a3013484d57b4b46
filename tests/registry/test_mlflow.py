"""A version in MLflow says what the registry says, once, however often it is shown.

The tests with a server need an interpreter of its own with MLflow and Foreword's registry, because MLflow
brings dozens of packages with it:

    python -m venv mlflow
    mlflow/bin/pip install . mlflow==3.17.2
    FOREWORD_MLFLOW_PYTHON=mlflow/bin/python make test
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import foreword
from foreword.artifact import Digest
from foreword.errors import ConfigError
from foreword.registry.layout import Layout, init
from foreword.registry.mlflow import mirror, register
from foreword.registry.registry import Registry
from tests.registry.samples import NAME, POLICY, by, publish

NAMED = os.environ.get("FOREWORD_MLFLOW_PYTHON")
PYTHON = str(Path(NAMED).absolute()) if NAMED else None
TRAINING = {
    "parent": str(Digest.of(b"parent")),
    "data": {"digest": str(Digest.of(b"rows")), "train_rows": 500},
    "seed": 7,
    "settings": {
        "steps": 100, "encoder": {"kind": "direct", "rank": None}, "prompt": "{input}\n",
        "long": "x" * 10_000, "odd key: 'ü'": True,
    },
    "run": {"steps": 100, "best_step": 80, "seconds": 12.5},
    "metrics": {"held_out_loss": 1.25, "frozen_loss": 3, "attention_share": {"decoder": [0.5]},
                "flag": True},
    "software": {"foreword": "0.1.0"},
}  # fmt: skip


# What is told.


def test_numbers_become_metrics_and_settings_parameters(local: Registry) -> None:
    artifact = publish(local, training=TRAINING)
    told = mirror(local.refresh(), local.state.versions[artifact.digest], artifact.manifest)
    assert told.metrics == {
        "held_out_loss": 1.25, "frozen_loss": 3.0, "run.steps": 100.0, "run.best_step": 80.0,
        "run.seconds": 12.5,
    }  # fmt: skip
    assert told.params["encoder.kind"] == "direct"
    assert told.params["encoder.rank"] == "None"
    assert told.params["odd key_ ___"] == "True"
    assert len(told.params["long"]) == 6_000
    assert told.params["long"].endswith("...")
    assert (told.model, told.name) == ("acme.support", NAME)


def test_the_tags_say_which_version_it_is_and_what_it_was_made_from(local: Registry) -> None:
    artifact = publish(local, training=TRAINING)
    told = mirror(local.refresh(), local.state.versions[artifact.digest], artifact.manifest)
    base = artifact.manifest.base
    assert told.tags == {
        "foreword.digest": str(artifact.digest),
        "foreword.name": NAME,
        "foreword.version": "1.0.0",
        "foreword.status": "live",
        "foreword.arm": "none",
        "foreword.base": base.id,
        "foreword.base_fingerprint": str(base.fingerprint),
        "foreword.data": str(Digest.of(b"rows")),
        "foreword.parent": str(Digest.of(b"parent")),
        "foreword.code": "0.1.0",
    }


def test_the_arm_is_that_of_the_release_now(local: Registry) -> None:
    stable, canary = publish(local, "1.0.0"), publish(local, "1.1.0")
    local.release(f"{NAME}@1.0.0", policy=POLICY, by=by())
    local.release(f"{NAME}@1.1.0", 0.5, policy=POLICY, by=by())
    arms = [
        mirror(local.state, local.state.versions[each.digest], each.manifest).tags["foreword.arm"]
        for each in (stable, canary)
    ]
    assert arms == ["stable", "canary"]


@pytest.mark.parametrize(
    "training", [{}, {"settings": [1], "metrics": "good", "run": None}, {"run": {"seconds": "x"}}]
)
def test_a_training_record_of_another_form_tells_less(
    local: Registry, training: dict[str, Any]
) -> None:
    artifact = publish(local, training=training)
    told = mirror(local.refresh(), local.state.versions[artifact.digest], artifact.manifest)
    assert (told.params, told.metrics) == ({}, {})


def test_a_number_beyond_all_bounds_is_no_metric(local: Registry) -> None:
    artifact = publish(local, training={"metrics": {"a": 1.0}})
    object.__setattr__(artifact.manifest, "training", {"metrics": {"a": math.inf, "b": math.nan}})
    told = mirror(local.refresh(), local.state.versions[artifact.digest], artifact.manifest)
    assert told.metrics == {}


@pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is not None, reason="MLflow is installed here"
)
def test_without_mlflow_it_says_what_to_install(local: Registry) -> None:
    publish(local)
    with pytest.raises(ConfigError) as caught:
        register(local, f"{NAME}@1.0.0", "http://127.0.0.1:1")
    assert caught.value.code == "mlflow.missing"


# What a server keeps of it.

needs_mlflow = pytest.mark.skipif(
    PYTHON is None, reason="FOREWORD_MLFLOW_PYTHON names no interpreter with MLflow (see above)"
)
REGISTER = """
import json, sys
from foreword.errors import ForewordError
from foreword.registry.mlflow import register
from foreword.registry.registry import Registry
directory, reference, uri = sys.argv[1:]
try:
    with Registry.open(directory) as registry:
        found = register(registry, reference, uri).to_json()
except ForewordError as e:
    found = {"code": e.code}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on SQLite."""
    home = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(PYTHON), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
             "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}",
             "--default-artifact-root", str(home / "artifacts"), "--workers", "1"],
            stdout=log, stderr=log, cwd=home, start_new_session=True,
        )  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while not _answers(uri):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((home / "log").read_text()[-2000:])
            time.sleep(0.3)
        yield uri
    finally:
        os.killpg(process.pid, 15)  # the group is its own: the server and its workers
        process.wait()


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Registry]:
    """A registry of its own with names of its own, because the server is shared."""
    with Registry.open(init(Layout(tmp_path / "registry")).directory) as registry:
        yield registry


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=5):  # noqa: S310
            return True
    except (urllib.error.URLError, OSError):
        return False


def delete(uri: str, path: str, **body: Any) -> None:
    request = urllib.request.Request(  # noqa: S310
        f"{uri}/api/2.0/mlflow/{path}", json.dumps(body).encode(),
        {"Content-Type": "application/json"}, method="DELETE",
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass


def get(uri: str, path: str, query: str) -> Any:
    """MLflow's REST interface, so that what was written is not read by who wrote it."""
    with urllib.request.urlopen(f"{uri}/api/2.0/mlflow/{path}?{query}", timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def show(registry: Registry, reference: str, uri: str) -> dict[str, Any]:
    directory = registry.database.path.parent
    source = Path(foreword.__file__).parents[1]
    done = subprocess.run(
        [str(PYTHON), "-c", REGISTER, str(directory), reference, uri],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(source)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))  # nothing but our own line went to stdout


def tags(found: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in found["tags"]}


@needs_mlflow
def test_a_version_is_shown_with_its_run(shown: Registry, server: str) -> None:
    name = "acme/shown"
    artifact = publish(shown, training=TRAINING, name=name)
    shown.release(f"{name}@1.0.0", policy=POLICY, by=by())
    found = show(shown, name, server)
    assert (found["model"], found["version"], found["new"]) == ("acme.shown", "1", True)
    kept = get(server, "model-versions/get", "name=acme.shown&version=1")["model_version"]
    assert kept["run_id"] == found["run_id"]
    assert kept["source"] == f"foreword://{name}@1.0.0"
    assert kept["status"] == "READY"
    assert tags(kept)["foreword.digest"] == str(artifact.digest)
    assert tags(kept)["foreword.arm"] == "stable"
    run = get(server, "runs/get", f"run_id={found['run_id']}")["run"]
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_name"] == f"{name} 1.0.0"
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert metrics["held_out_loss"] == 1.25
    params = {param["key"]: param["value"] for param in run["data"]["params"]}
    assert params["encoder.kind"] == "direct"


@needs_mlflow
def test_showing_it_again_only_brings_it_up_to_date(shown: Registry, server: str) -> None:
    name = "acme/again"
    publish(shown, training=TRAINING, name=name)
    first = show(shown, f"{name}@1.0.0", server)
    shown.release(f"{name}@1.0.0", policy=POLICY, by=by())
    second = show(shown, f"{name}@1.0.0", server)
    assert second == {**first, "new": False}
    versions = get(server, "model-versions/search", "filter=name%3D%27acme.again%27")[
        "model_versions"
    ]
    assert len(versions) == 1
    assert tags(versions[0])["foreword.arm"] == "stable"
    history = get(
        server, "metrics/get-history", f"run_id={first['run_id']}&metric_key=held_out_loss"
    )
    assert len(history["metrics"]) == 1


@needs_mlflow
def test_what_was_cut_short_after_its_run_is_completed(shown: Registry, server: str) -> None:
    name = "acme/cut"
    artifact = publish(shown, training=TRAINING, name=name)
    first = show(shown, f"{name}@1.0.0", server)
    delete(server, "model-versions/delete", name=first["model"], version=first["version"])
    second = show(shown, f"{name}@1.0.0", server)
    assert second["run_id"] == first["run_id"]
    assert second["new"]
    assert second["version"] != first["version"]
    kept = get(server, "model-versions/get", f"name=acme.cut&version={second['version']}")
    assert tags(kept["model_version"])["foreword.digest"] == str(artifact.digest)


@needs_mlflow
def test_two_names_that_look_alike_to_mlflow_are_not_mixed(shown: Registry, server: str) -> None:
    publish(shown, name="a.b/c")
    publish(shown, name="a/b.c")
    assert show(shown, "a.b/c@1.0.0", server)["model"] == "a.b.c"
    assert show(shown, "a/b.c@1.0.0", server) == {"code": "mlflow.name"}


@needs_mlflow
def test_a_server_that_does_not_answer_is_a_typed_error(
    shown: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(shown, name="acme/alone")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    found = show(shown, "acme/alone@1.0.0", "http://127.0.0.1:1")
    assert found == {"code": "storage.remote"}


@needs_mlflow
def test_what_is_not_live_is_not_shown(shown: Registry, server: str) -> None:
    publish(shown, name="acme/ended")
    shown.revoke("acme/ended@1.0.0", by=by())
    assert show(shown, "acme/ended@1.0.0", server) == {"code": "registry.revoked"}
