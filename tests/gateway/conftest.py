"""A home with a tiny model, for tests that start a server process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.served import Ground, home_at, save_model
from tests.telemetry.servers import prometheus_programs

__all__ = ["ground", "model", "prometheus_programs"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def ground(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path))
    monkeypatch.delenv("FOREWORD_REGISTRY", raising=False)
    with home_at(tmp_path, model) as made:
        yield made
