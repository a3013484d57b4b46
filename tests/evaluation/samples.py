"""Small golden sets and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foreword.artifact import Digest
from foreword.evaluation.golden import GoldenRow, GoldenSet, Header
from foreword.evaluation.metrics.metric import Judged
from foreword.evaluation.metrics.suite import judged_rows
from foreword.evaluation.runs.answers import Answer

HEADER: dict[str, Any] = {
    "foreword_golden": 1, "name": "acme/support", "version": "1.0.0", "specialty": "support",
    "languages": ["en", "de"],
}  # fmt: skip
PREFIX = Digest.of(b"prefix")


def write_lines(path: Path, *values: Any) -> Path:
    """A JSONL file; a text is a line as it is."""
    lines = [value if isinstance(value, str) else json.dumps(value) for value in values]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(identity: str = "r1", text: str = "hello", **more: Any) -> GoldenRow:
    given: dict[str, Any] = {
        "id": identity, "cohort": "all", "specialty": "support", "language": "en",
        "columns": {"input": text},
    }  # fmt: skip
    return GoldenRow(**{**given, **more})


def golden(*rows: GoldenRow) -> GoldenSet:
    return GoldenSet(Header("acme/support", "1.0.0", "support", ("en", "de")), rows)


def judged(*pairs: tuple[GoldenRow, str]) -> list[Judged]:
    answers = {each.id: Answer(text, None) for each, text in pairs}
    return judged_rows([each for each, _ in pairs], answers)
