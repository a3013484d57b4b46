"""Draft rows from a log of requests and feedback that somebody hands over; nothing is collected.

A line is a request (`id`, one of `input`, `columns`, `messages`, and if known `answer`, `cohort`,
`language`), or feedback on one (`id`, `feedback` of `up` or `down`, `correction`); a request's own line
may have its feedback too. Other fields are left aside: logs are not made for us.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foreword.artifact import canonical
from foreword.errors import ArtifactError
from foreword.evaluation.golden.golden_set import GoldenSet
from foreword.evaluation.golden.reading import Problem, json_lines
from foreword.evaluation.golden.row import GoldenRow, parse_row

DRAFT = "draft"
"""The tag of rows no person has looked at yet."""
_INPUTS = ("input", "columns", "messages")
_COPIED = (*_INPUTS, "cohort", "language")
_FEEDBACK = ("up", "down")


@dataclass(frozen=True)
class Drafts:
    """What a log gave."""

    golden: GoldenSet
    """The set with the drafts behind its rows."""
    added: int
    duplicates: int
    """Requests that ask what the set or an earlier request asks, but for case and spaces."""
    problems: tuple[Problem, ...]
    """Lines that could not be used."""


def add_from_logs(golden: GoldenSet, log: Path, version: str) -> Drafts:
    """The set as `version`, with a draft row for each new request of `log`.

    A correction becomes the reference; without one, an answer with the feedback `up` does. Rows that
    were voted down and not corrected have no reference, and the tag `thumbs_down`.

    Raises:
        DataError: there is no such file (`golden.missing`).
    """
    requests, problems = requests_of(log)
    known = {_alike(row.asked()) for row in golden.rows}
    rows: list[GoldenRow] = []
    duplicates = 0
    for source, request in requests:
        try:
            row = _draft(request, golden)
        except ArtifactError as e:
            problems.append(Problem(source, str(e)))
            continue
        alike = _alike(row.asked())
        duplicates += alike in known
        if alike not in known:
            known.add(alike)
            rows.append(row)
    header = replace(golden.header, version=version)
    return Drafts(GoldenSet(header, (*golden.rows, *rows)), len(rows), duplicates, tuple(problems))


def requests_of(log: Path) -> tuple[list[tuple[str, dict[str, Any]]], list[Problem]]:
    """Requests with the feedback on them, wherever in the log it stands."""
    requests: list[tuple[str, dict[str, Any]]] = []
    feedback: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for source, value in json_lines(log):
        if isinstance(value, Problem):
            problems.append(value)
        elif reason := _problem(value):
            problems.append(Problem(source, reason))
        elif any(name in value for name in _INPUTS):
            requests.append((source, dict(value)))
        else:
            feedback.setdefault(value["id"], {}).update(value)
    for _, request in requests:
        request.update(feedback.get(request.get("id", ""), {}))
    return requests, problems


def _problem(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "expected a JSON object"
    for name in ("id", "answer", "correction"):
        if name in value and not isinstance(value[name], str):
            return f"{name}: expected text"
    if value.get("feedback", "up") not in _FEEDBACK:
        return f"feedback: expected up or down, got {str(value['feedback'])[:40]!r}"
    if "id" not in value and not any(name in value for name in _INPUTS):
        return f"expected a request with one of {', '.join(_INPUTS)}, or feedback with an id"
    return None


def _draft(request: Mapping[str, Any], golden: GoldenSet) -> GoldenRow:
    row = {name: request[name] for name in _COPIED if name in request}
    asked = {name: request[name] for name in _INPUTS if name in request}
    row["id"] = f"log-{hashlib.sha256(canonical.encode(asked)).hexdigest()[:16]}"
    up = request.get("feedback") == "up"
    reference = request.get("correction") or (request.get("answer") if up else None)
    if reference:
        row["references"] = [reference]
    down = request.get("feedback") == "down" and not reference
    row["tags"] = [DRAFT, "thumbs_down"] if down else [DRAFT]
    return parse_row(row, golden.header.specialty, golden.header.languages)


def _alike(asked: Any) -> Any:
    """The same for inputs that differ in case and spaces only; it can be put into a set."""
    if isinstance(asked, str):
        return " ".join(asked.casefold().split())
    if isinstance(asked, Mapping):
        return tuple((name, _alike(asked[name])) for name in sorted(asked))
    return tuple(_alike(each) for each in asked)
