"""Metrics of answers that should be JSON: valid, conforming, with the right fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from foreword.artifact import canonical
from foreword.errors import ArtifactError
from foreword.evaluation.checks.structured import read_json
from foreword.evaluation.metrics.metric import Judged, Metric, row_metric
from foreword.evaluation.metrics.overlap import f1

_SCHEMA = "json_schema"


def json_valid() -> Metric:
    return row_metric(
        "json_valid",
        "the answer is one JSON value and nothing else; of rows that want JSON",
        _valid,
    )


def schema_conformance() -> Metric:
    return row_metric(
        "schema_conformance", "the answer conforms to the row's JSON Schemas", _conforms
    )


def field_f1() -> Metric:
    return row_metric(
        "field_f1",
        "F1 of the fields of a JSON answer: a field counts if its path and its value are right",
        _field_f1,
    )


def _valid(judged: Judged) -> float | None:
    wants = judged.row.fields is not None or any(c.kind == _SCHEMA for c in judged.row.checks)
    if not wants:
        return None
    try:
        read_json(judged.answer.text)
    except ValueError:
        return 0.0
    return 1.0


def _conforms(judged: Judged) -> float | None:
    outcomes = [
        outcome.passed
        for check, outcome in zip(judged.row.checks, judged.outcomes, strict=True)
        if check.kind == _SCHEMA
    ]
    return float(all(outcomes)) if outcomes else None


def _field_f1(judged: Judged) -> float | None:
    if judged.row.fields is None:
        return None
    try:
        said = Counter(_leaves(read_json(judged.answer.text)))
    except (ValueError, ArtifactError):
        return 0.0
    wanted = Counter(_leaves(judged.row.fields))
    return f1((said & wanted).total(), said.total(), wanted.total())


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, bytes]]:
    """Every value that is no object or list, with its path; the order in lists does not count."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}/{name}")
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _leaves(inner, f"{path}/*")
    else:
        yield path, canonical.encode(value)
