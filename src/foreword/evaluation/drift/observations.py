"""Observations: what a prefix was asked and how it answered, from a log of requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foreword.artifact import canonical
from foreword.errors import ArtifactError
from foreword.evaluation.checks.refusals import declines
from foreword.evaluation.drift.permutation import Numbers
from foreword.evaluation.golden.logs import requests_of
from foreword.evaluation.golden.reading import Problem

COLUMNS = ("input_length", "answer_length", "latency", "refusal", "score")
"""Numbers of an observation that are compared. Lengths in characters, latency in seconds, refusal 0 or 1 (a
proxy, unless the log says), score as the log has it."""


@dataclass(frozen=True)
class Observation:
    """One request and its answer."""

    text: str
    """What was asked, as text."""
    numbers: Mapping[str, float]
    """By column; what is not known is not there."""
    row: Mapping[str, Any]
    """The log's own line: what a snapshot keeps."""


@dataclass(frozen=True)
class Observed:
    """What a log gave."""

    observations: tuple[Observation, ...]
    problems: tuple[Problem, ...]
    """Lines that could not be used."""


def read_observations(log: Path, digest: str | None = None) -> Observed:
    """Requests of a JSONL log in the form that `foreword golden add-from-logs` reads.

    Besides `input` (or `columns`, `messages`) and `answer`, a line may have `seconds`, `refused`, `score`
    and `digest`; with `digest` only lines of that version count, and those that name none.

    Raises:
        DataError: there is no such file (`golden.missing`).
    """
    requests, problems = requests_of(log)
    found = []
    for source, row in requests:
        if digest is not None and row.get("digest", digest) != digest:
            continue
        try:
            found.append(observation(row))
        except (ArtifactError, ValueError) as e:
            problems.append(Problem(source, str(e)))
    return Observed(tuple(found), tuple(problems))


def observation(row: Mapping[str, Any]) -> Observation:
    """The observation of one line of a log.

    Raises:
        ValueError: a field is not of its type.
    """
    text = _asked(row)
    numbers = {"input_length": float(len(text))}
    answer = row.get("answer")
    if isinstance(answer, str):
        numbers["answer_length"] = float(len(answer))
        numbers["refusal"] = float(declines(answer))
    for column, name in (("latency", "seconds"), ("refusal", "refused"), ("score", "score")):
        if row.get(name) is not None:
            numbers[column] = _number(name, row[name])
    return Observation(text, numbers, row)


def column(observations: tuple[Observation, ...], name: str) -> Numbers:
    """A column's numbers, of those that have it."""
    return np.array([o.numbers[name] for o in observations if name in o.numbers], dtype=np.float64)


def snapshot(observations: tuple[Observation, ...]) -> bytes:
    """The rows as JSONL, one canonical line each: data to label and to train the next version from."""
    return b"".join(canonical.encode(dict(o.row)) + b"\n" for o in observations)


def _asked(row: Mapping[str, Any]) -> str:
    if isinstance(row.get("input"), str):
        return str(row["input"])
    if isinstance(row.get("columns"), dict):
        return "\n".join(str(value) for value in row["columns"].values())
    messages = row.get("messages")
    if isinstance(messages, list) and all(isinstance(m, dict) for m in messages):
        return "\n".join(str(m.get("content", "")) for m in messages)
    raise ValueError("expected `input` as text, `columns` as an object or `messages` as a list")


def _number(name: str, value: Any) -> float:
    if not isinstance(value, bool | int | float) or not np.isfinite(value):
        raise ValueError(f"{name}: expected a number or a truth value, got {str(value)[:40]!r}")
    return float(value)
