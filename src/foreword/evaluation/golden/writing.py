"""Write golden sets: a header line, then one row a line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from foreword.artifact.disk import not_written, sync_directory, write_synced
from foreword.evaluation.golden.golden_set import GoldenSet


def golden_lines(golden: GoldenSet) -> list[str]:
    """The lines of a set's file, without line ends. Reading them gives an equal set."""
    return [_line(golden.header.to_json()), *(_line(row.to_json()) for row in golden.rows)]


def write_golden(golden: GoldenSet, path: Path) -> None:
    """Write a set, whole or not at all; a file that is there is replaced.

    Raises:
        StorageError: the disk refused; what was there is still there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    text = "\n".join(golden_lines(golden)) + "\n"
    try:
        write_synced(beside, text.encode())
        beside.replace(path)
        sync_directory(path.parent)
    except OSError as e:
        beside.unlink(missing_ok=True)
        raise not_written(path, e) from e


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
