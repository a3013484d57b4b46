"""Answers on disk, so that a run that was stopped goes on where it was.

One file per (prefix digest, base, route, prompt, set digest, decoding, engine): a first line with that key,
then one line for each row's answer, only ever added. A line that was torn by a crash is no answer, and its
row is asked again; so is one that never reached the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from foreword.artifact import Digest, canonical
from foreword.artifact.disk import not_written, sync_directory
from foreword.errors import ForewordError, StorageError
from foreword.evaluation.runs.answers import Answer

Key = Mapping[str, Any]


class AnswerStore:
    """A directory of answers; several runs may use it at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[Path, int] = {}

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def answers(self, key: Key) -> dict[str, Answer]:
        """What is known under a key, by row id.

        Raises:
            StorageError: the file cannot be read, or is not of this key (`evaluation.store`).
        """
        path = self._path(key)
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return {}
        except OSError as e:
            raise StorageError(f"{path} cannot be read ({e.strerror})", code="storage.read") from e
        if len(lines) == 1:  # a crash tore the first line: nothing was answered yet
            return {}
        if lines[0] != canonical.encode(key):
            raise StorageError(
                f"{path} is not about the run it is named for; move it away and run again",
                code="evaluation.store",
            )
        found: dict[str, Answer] = {}
        for line in lines[1:]:
            if (read := _read(line)) is not None:
                found.setdefault(*read)
        return found

    def keys(self) -> list[Key]:
        """All keys there are answers under, those with the newest answers first."""
        try:
            files = [(path.stat().st_mtime, path) for path in self._directory.glob("*.jsonl")]
            lines = [path.open("rb").readline() for _, path in sorted(files, reverse=True)]
        except OSError as e:
            raise StorageError(
                f"{self._directory} cannot be read ({e.strerror})", code="storage.read"
            ) from e
        return [canonical.decode(line[:-1]) for line in lines if line.endswith(b"\n")]

    def add(self, key: Key, row: str, answer: Answer) -> None:
        """Keep one answer.

        Raises:
            StorageError: the disk refused (`storage.*`).
        """
        path = self._path(key)
        line = {
            "row": row, "text": answer.text, "tokens": answer.tokens, "seconds": answer.seconds,
            "digest": str(answer.digest) if answer.digest else None,
        }  # fmt: skip
        try:
            file = self._open.get(path)
            if file is None:
                file = self._open[path] = self._start(path, key)
            _write(file, json.dumps(line).encode() + b"\n")
        except OSError as e:
            raise not_written(path, e) from e

    def close(self) -> None:
        """Put everything on the disk and let go of the files."""
        files, self._open = self._open, {}
        for path, file in files.items():
            try:
                os.fsync(file)
            except OSError as e:
                raise not_written(path, e) from e
            finally:
                os.close(file)

    def _path(self, key: Key) -> Path:
        return self._directory / f"{Digest.of(canonical.encode(key)).hex}.jsonl"

    def _start(self, path: Path, key: Key) -> int:
        self._directory.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(file).st_size
        if b"\n" not in os.pread(file, size, 0):
            os.ftruncate(file, 0)
            _write(file, canonical.encode(key) + b"\n")
            sync_directory(self._directory)
        elif os.pread(file, 1, size - 1) != b"\n":
            _write(file, b"\n")  # a torn line ends here, so that the next one is whole
        return file


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _read(line: bytes) -> tuple[str, Answer] | None:
    """A row id and its answer, or None for a line that is not whole."""
    try:
        value = json.loads(line)
        digest = Digest.parse(value["digest"]) if value["digest"] is not None else None
        return value["row"], Answer(value["text"], digest, value["tokens"], value["seconds"])
    except (ValueError, KeyError, TypeError, ForewordError):
        return None
