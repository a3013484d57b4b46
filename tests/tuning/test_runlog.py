"""The log of a run holds each step once, whatever happened between two sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreword.errors import StorageError
from foreword.tuning.runlog import RunLog, read_log


def steps(path: Path) -> list[int]:
    return [entry["step"] for entry in read_log(path)]


def fill(path: Path, count: int) -> None:
    log = RunLog(path, keep_through=0)
    for step in range(1, count + 1):
        log.write({"step": step, "loss": 1 / step})


def test_a_log_reads_back_what_was_written(tmp_path: Path) -> None:
    entry = {"step": 1, "loss": 0.5, "text": "two\nlines \u2028 and \x85 ä 🎉"}
    RunLog(tmp_path / "new" / "log.jsonl", keep_through=0).write(entry)

    assert read_log(tmp_path / "new" / "log.jsonl") == [entry]


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert read_log(tmp_path / "none.jsonl") == []


def test_a_resumed_run_drops_steps_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    fill(path, 7)
    log = RunLog(path, keep_through=5)

    assert steps(path) == [1, 2, 3, 4, 5]
    for step in (6, 7, 8):
        log.write({"step": step, "loss": 0.0})
    assert steps(path) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert read_log(path)[5]["loss"] == 0.0, "the new session's value, not the dropped one"


def test_a_fresh_run_keeps_nothing_of_an_old_log(tmp_path: Path) -> None:
    fill(tmp_path / "log.jsonl", 3)
    RunLog(tmp_path / "log.jsonl", keep_through=0)

    assert (tmp_path / "log.jsonl").read_bytes() == b""


@pytest.mark.parametrize("torn", [b'{"step": 4, "lo', b"\x00\x00\x00", b'{"step": 4, "t": "\xc3'])
def test_a_line_torn_by_a_crash_ends_the_log_and_is_not_glued_to_the_next(
    torn: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "log.jsonl"
    fill(path, 3)
    with path.open("ab") as file:
        file.write(torn)

    assert steps(path) == [1, 2, 3]
    RunLog(path, keep_through=3).write({"step": 4, "loss": 0.0})
    assert steps(path) == [1, 2, 3, 4]


def test_each_step_is_there_once_however_often_a_run_was_stopped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for start, end in ((0, 5), (3, 8), (6, 6), (6, 10), (10, 12)):
        log = RunLog(path, keep_through=start)
        for step in range(start + 1, end + 1):
            log.write({"step": step})

    assert steps(path) == list(range(1, 13))
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"], "no draft is left behind"


def test_a_log_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        RunLog(tmp_path / "file" / "log.jsonl", keep_through=0)
    assert caught.value.code == "storage.log"

    log = RunLog(tmp_path / "log.jsonl", keep_through=0)
    log.path = tmp_path
    with pytest.raises(StorageError) as caught:
        log.write({"step": 1})
    assert "the last checkpoint is intact" in str(caught.value)
