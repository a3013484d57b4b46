"""Read rows from JSONL, CSV, TSV, Parquet, a Hugging Face dataset or memory.

Every row comes with its source (`file:line`); what is not a row comes as the reason why.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from foreword.errors import DataError

HUB = "hf:"


class RawRow(NamedTuple):
    """A row as it was found, or why it is none."""

    source: str
    """`file:line`, or `name:row` for what has no lines."""
    values: Mapping[str, Any] | None
    problem: str | None = None


def read_rows(data: Any) -> Iterator[RawRow]:
    """Rows of a path, `hf:name[:split]`, a `datasets.Dataset`, or an iterable of mappings.

    Raises:
        DataError: the file is missing, or its format is not known (codes `data.*`).
    """
    if isinstance(data, str | Path):
        text = str(data)
        return _hub(text.removeprefix(HUB)) if text.startswith(HUB) else _file(Path(text))
    if isinstance(data, Iterable):
        return _memory(_one_split(data, "the dataset"))
    raise DataError(
        f"expected a path, hf:NAME, a dataset or a list of rows, got {type(data).__name__}",
        code="data.kind",
    )


def _file(path: Path) -> Iterator[RawRow]:
    if path.is_dir():
        return _saved_dataset(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}", code="data.missing")
    readers: dict[str, Callable[[Path], Iterator[RawRow]]] = {
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".csv": lambda p: _csv(p, ","),
        ".tsv": lambda p: _csv(p, "\t"),
        ".parquet": _parquet,
    }
    if path.suffix.lower() not in readers:
        raise DataError(
            f"{path} has the ending {path.suffix or '(none)'}; expected one of {', '.join(readers)}, "
            "a directory saved by `datasets`, or hf:NAME",
            code="data.format",
        )
    return readers[path.suffix.lower()](path)


def _lines(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Lines, their numbers, and whether they are UTF-8; what is not is replaced by U+FFFD."""
    for number, line in enumerate(_raw_lines(path), 1):
        encoding = "utf-8-sig" if number == 1 else "utf-8"
        try:
            yield number, line.decode(encoding), True
        except UnicodeDecodeError:
            yield number, line.decode(encoding, "replace"), False


def _raw_lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as e:
        raise DataError(f"{path} cannot be read ({e.strerror})", code="data.unreadable") from e


def _jsonl(path: Path) -> Iterator[RawRow]:
    for number, line, is_text in _lines(path):
        source = f"{path}:{number}"
        if not is_text:
            yield RawRow(source, None, "not UTF-8 text")
        elif line.strip():
            yield _json_row(source, line)


def _json_row(source: str, line: str) -> RawRow:
    try:
        value = json.loads(line, object_pairs_hook=_object)
    except (ValueError, RecursionError) as e:
        return RawRow(source, None, f"not readable as JSON ({e})")
    if not isinstance(value, dict):
        return RawRow(source, None, f"expected a JSON object, got a {type(value).__name__}")
    return RawRow(source, value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in values if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return values


def _csv(path: Path, delimiter: str) -> Iterator[RawRow]:
    broken: list[int] = []

    def text() -> Iterator[str]:
        for number, line, is_text in _lines(path):
            if not is_text:
                broken.append(number)
            yield line  # with its quotes and delimiters, so that later rows stay where they are

    reader = csv.reader(text(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        before = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            yield RawRow(f"{path}:{before}", None, f"not readable as CSV ({e})")
            continue
        source = f"{path}:{before}"
        if broken and broken[-1] >= before:
            yield RawRow(source, None, "not UTF-8 text")
            header = header or row
        elif not row:
            continue  # a blank line
        elif header is None:
            header = _header(row, source)
        elif len(row) != len(header):
            yield RawRow(source, None, f"expected {len(header)} fields, got {len(row)}")
        else:
            yield RawRow(source, dict(zip(header, row, strict=True)))


def _header(names: list[str], source: str) -> list[str]:
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise DataError(
            f"{source} names the column {twice[0]!r} twice; rename one", code="data.header"
        )
    return names


def _parquet(path: Path) -> Iterator[RawRow]:
    try:
        import pyarrow.parquet
    except ImportError as e:
        raise DataError(
            "reading Parquet needs pyarrow; install foreword[train]", code="data.pyarrow"
        ) from e
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as e:
        raise DataError(f"{path} is not readable as Parquet ({e})", code="data.format") from e
    for number, values in enumerate(table.to_pylist(), 1):
        yield RawRow(f"{path}:{number}", values)


def _saved_dataset(path: Path) -> Iterator[RawRow]:
    datasets = _datasets()
    try:
        loaded = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as e:
        raise DataError(
            f"{path} is a directory, but not one saved by `datasets` ({e}); name a file",
            code="data.format",
        ) from e
    return _memory(_one_split(loaded, str(path)), str(path))


def _one_split(data: Any, name: str) -> Iterable[Any]:
    """`data`, or its split `train` where it is a mapping of splits."""
    if not isinstance(data, Mapping):
        return cast("Iterable[Any]", data)
    if "train" not in data:
        raise DataError(
            f"{name} has no split 'train', only {', '.join(map(repr, data))}; name one of them",
            code="data.split",
        )
    return cast("Iterable[Any]", data["train"])


def _hub(name: str) -> Iterator[RawRow]:
    datasets = _datasets()
    repository, _, split = name.partition(":")
    try:
        loaded = datasets.load_dataset(repository, split=split or "train")
    except Exception as e:  # the library raises many kinds for one meaning
        raise DataError(
            f"the dataset {repository} could not be fetched ({e}); check its name and the network",
            code="data.hub",
        ) from e
    return _memory(loaded, f"{HUB}{name}")


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as e:
        raise DataError(
            "Hugging Face datasets need the package `datasets`; install foreword[data]",
            code="data.datasets",
        ) from e
    return datasets


def _memory(rows: Iterable[Any], name: str = "row") -> Iterator[RawRow]:
    for number, values in enumerate(rows, 1):
        if isinstance(values, Mapping):
            yield RawRow(f"{name}:{number}", dict(values))
        else:
            yield RawRow(
                f"{name}:{number}", None, f"expected a mapping, got {type(values).__name__}"
            )
