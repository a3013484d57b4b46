"""The log of a run: one JSON object per step and line, each step once, however often it resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foreword.errors import StorageError


class RunLog:
    """Append to a log, first dropping what lies after the step a resumed run goes on from."""

    def __init__(self, path: Path, *, keep_through: int) -> None:
        self.path = path
        kept = [entry for entry in read_log(path) if entry["step"] <= keep_through]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.tmp")
            draft.write_text("".join(map(_line, kept)), encoding="utf-8")
            os.replace(draft, path)
        except OSError as e:
            raise StorageError(f"the log {path} cannot be written ({e})", code="storage.log") from e

    def write(self, entry: Mapping[str, Any]) -> None:
        """Add one step; it is with the operating system when this returns."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(entry))
        except OSError as e:
            raise StorageError(
                f"the log {self.path} cannot be written ({e.strerror}); the last checkpoint is "
                "intact; free some space and run the same command again",
                code="storage.log",
            ) from e


def read_log(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a log; a line torn by a crash ends it."""
    entries: list[dict[str, Any]] = []
    if not path.exists():
        return entries
    for line in path.read_bytes().splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
