"""Read golden sets strictly: every problem has its file and line, and nothing is repaired."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foreword.artifact import canonical
from foreword.artifact.disk import read_bounded
from foreword.errors import ArtifactError, DataError
from foreword.evaluation.checks.structured import no_constant, unique
from foreword.evaluation.golden.golden_set import GoldenSet, Header, parse_header
from foreword.evaluation.golden.row import GoldenRow, parse_row

MAX_BYTES = 256 << 20
MAX_LINE = 1 << 20
MAX_ROWS = 100_000
_SHOWN = 5


@dataclass(frozen=True)
class Problem:
    """Why a line cannot be used."""

    source: str
    """`file:line`."""
    reason: str

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


def read_golden(path: Path) -> GoldenSet:
    """Read a set.

    Raises:
        DataError: there is no such file (`golden.missing`), or lines cannot be used
            (`golden.bad_rows`); the message names the first few with file and line.
    """
    golden, problems = inspect_golden(path)
    if golden is None or problems:
        raise _bad(path, problems)
    return golden


def inspect_golden(path: Path) -> tuple[GoldenSet | None, tuple[Problem, ...]]:
    """The good rows of a set, and everything that is wrong with it. Without a header, no set."""
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        return None, (Problem(f"{path}:1", "the file is empty; expected a header line"),)
    try:
        header = parse_header(_value(first[1]))
    except (ArtifactError, ValueError) as e:
        hint = 'the first line says what the set is: {"foreword_golden": 1, "name": ...}'
        return None, (Problem(f"{path}:{first[0]}", f"{e}; {hint}"),)
    reader = _Reader(path, header)
    for number, line in lines:
        reader.take(number, line)
    if not reader.rows and not reader.problems:
        reader.problems.append(Problem(f"{path}:{first[0]}", "the set has no rows"))
    return GoldenSet(header, tuple(reader.rows)), tuple(reader.problems)


@dataclass
class _Reader:
    path: Path
    header: Header
    rows: list[GoldenRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    _seen: dict[tuple[str, str], int] = field(default_factory=dict)

    def take(self, number: int, line: bytes) -> None:
        try:
            if len(self.rows) >= MAX_ROWS:
                raise ValueError(f"expected at most {MAX_ROWS} rows")
            row = parse_row(_value(line), self.header.specialty, self.header.languages)
            self._refuse_twice(row, number)
            self.rows.append(row)
        except (ArtifactError, ValueError) as e:
            self.problems.append(Problem(f"{self.path}:{number}", str(e)))

    def _refuse_twice(self, row: GoldenRow, number: int) -> None:
        """The same input twice would count as two witnesses, which it is not."""
        asked = canonical.encode(row.asked()).decode()
        for what, key in (("id", row.id), ("input", asked)):
            before = self._seen.setdefault((what, key), number)
            if before != number:
                raise ValueError(f"the {what} of row {row.id!r} occurs in line {before} already")


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """`file:line` of every line that is not blank, and its value, or a `Problem` if it has none.

    Raises:
        DataError: the file cannot be read (`golden.missing`).
    """
    for number, line in _lines(path):
        try:
            yield f"{path}:{number}", _value(line)
        except ValueError as e:
            yield f"{path}:{number}", Problem(f"{path}:{number}", str(e))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        data = read_bounded(path, MAX_BYTES)
    except ArtifactError as e:
        raise DataError(f"{e}; expected a JSONL file", code="golden.missing") from e
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield number, line


def _value(line: bytes) -> Any:
    if len(line) > MAX_LINE:
        raise ValueError(f"expected at most {MAX_LINE} bytes, got {len(line)}")
    try:
        return json.loads(
            line.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant
        )
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    except json.JSONDecodeError as e:
        raise ValueError(f"not readable as JSON ({e})") from e


def _bad(path: Path, problems: Sequence[Problem]) -> DataError:
    shown = "; ".join(str(problem) for problem in problems[:_SHOWN])
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return DataError(
        f"{len(problems)} bad line{'s' if len(problems) > 1 else ''}: {shown}{more}. Mend them and "
        "look again with `foreword golden validate`",
        code="golden.bad_rows",
    )
