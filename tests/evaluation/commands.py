"""The command line within the test's own process, and small golden sets and policies on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from foreword.cli.main import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


class Commands:
    """`foreword` as a user calls it, without a new interpreter for each call."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *words: str | Path) -> Done:
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        said = self._capture.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    def good(self, *words: str | Path) -> str:
        """What it prints; anything but success is a failure of the test."""
        done = self(*words)
        assert done.code == 0, f"{words}: {done.code}\n{done.out}\n{done.err}"
        return done.out


def write_set(
    path: Path, rows: Sequence[dict[str, Any]], name: str = "acme/loud", specialty: str = "loud",
    version: str = "1.0.0",
) -> Path:  # fmt: skip
    header = {"foreword_golden": 1, "name": name, "version": version, "specialty": specialty}
    path.write_text("".join(json.dumps(value) + "\n" for value in (header, *rows)))
    return path


def write_policy(path: Path, **settings: Any) -> Path:
    path.write_text(yaml.safe_dump({"simulations": 100, **settings}))
    return path
