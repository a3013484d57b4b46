"""The file of the last known good table: whole or refused, and never in anybody's way."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact import Digest, PromptFormat, canonical
from foreword.errors import ArtifactError, StorageError
from foreword.registry.entries import Retired, Revoked
from foreword.serving.gateway.routing.keeper import Keeper, write
from foreword.serving.gateway.routing.known_good import (
    MAX_RECENT,
    KnownGood,
    from_bytes,
    to_lines,
)
from foreword.serving.gateway.routing.recent import Recent
from foreword.serving.gateway.routing.table import ReleaseTable, with_prompts
from tests.gateway.routing.made import alias, released, table_of
from tests.registry.samples import NOW, facts

NAME = "acme/support"


def known() -> KnownGood:
    log = released(NAME, "zebra/sales", "support", canary=0.25)
    alias(log, "night", "2.0.0", NAME)
    log.add(Revoked("zebra/sales", facts("1.0.0", "zebra/sales").digest, None))
    log.add(Retired("support", facts("2.0.0", "support").digest))
    table = table_of(log)
    first, second, *_ = table.versions
    table = with_prompts(table, {first: PromptFormat("chat", "{{ größer }}")})
    table = replace(table, prompts={d: p for d, p in table.prompts.items() if d != second})
    return KnownGood(table, NOW, (first, second))


def written() -> bytes:
    return b"".join(to_lines(known()))


def test_what_is_written_is_read_again() -> None:
    assert from_bytes(written()) == known()
    empty = KnownGood(ReleaseTable(), NOW)
    assert from_bytes(b"".join(to_lines(empty))) == empty


def test_what_was_revoked_stays_revoked() -> None:
    table = from_bytes(written()).table
    assert table.versions[facts("1.0.0", "zebra/sales").digest].status == "revoked"
    assert table.versions[facts("2.0.0", "support").digest].status == "retired"


def test_a_template_is_written_once_however_many_versions_have_it() -> None:
    log = released(*(f"acme/p{i}" for i in range(50)))
    table = with_prompts(
        table_of(log), dict.fromkeys(log.state.versions, PromptFormat("chat", "x" * 9_000))
    )
    assert sum(map(len, to_lines(KnownGood(table, NOW)))) < 100_000


@given(st.data())
def test_a_file_that_is_not_as_it_was_written_is_refused(data: st.DataObject) -> None:
    whole = written()
    at = data.draw(st.integers(0, len(whole) - 2))  # the last byte ends a line that is over
    how = data.draw(st.sampled_from(["cut", "bit", "drop", "line"]))
    if how == "cut":
        broken = whole[:at]
    elif how == "bit":
        broken = (
            whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
        )
    elif how == "drop":
        broken = whole[:at] + whole[at + 1 :]
    else:
        lines = whole.splitlines(keepends=True)
        del lines[data.draw(st.integers(0, len(lines) - 1))]
        broken = b"".join(lines)
    with pytest.raises(ArtifactError):
        from_bytes(broken)


def resummed(*lines: object) -> bytes:
    body = b"".join(canonical.encode(line) + b"\n" for line in lines)
    return body + canonical.encode({"sha256": str(Digest.of(body))}) + b"\n"


HEAD = {"seq": 3, "hash": str(Digest.of(b"3"))}
HEADER = {"schema": "foreword.known-good/1", "head": HEAD, "read": "2026-01-31T12:00:00Z"}
NAMED = {"name": NAME, "aliases": {}, "release": None}


@pytest.mark.parametrize(
    "lines",
    [
        [{**HEADER, "schema": "foreword.known-good/2"}],
        [{**HEADER, "read": "yesterday"}],
        [{**HEADER, "more": 1}],
        [HEADER, {"neither": 1}],
        [HEADER, {"name": {**NAMED, "name": "../etc"}}],
        [HEADER, {"name": {**NAMED, "aliases": {"night": str(Digest.of(b"nobody's"))}}}],
        [
            HEADER,
            {"name": {**NAMED, "release": {"stable": str(Digest.of(b"x")), "canary": None, "share": 0}}},
        ],
        [
            HEADER,
            {
                "version": {
                    "name": NAME, "version": "1.0.0", "digest": str(Digest.of(b"x")), "length": 3,
                    "base": str(Digest.of(b"b")), "status": "live", "prompt": 0,
                }
            },
        ],
    ],
)  # fmt: skip
def test_a_whole_file_that_says_something_else_is_refused(lines: list[object]) -> None:
    from_bytes(resummed(HEADER))
    with pytest.raises(ArtifactError):
        from_bytes(resummed(*lines))


def test_a_file_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert Keeper(tmp_path / "absent").read() is None


def test_a_write_that_is_refused_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "known-good.jsonl"
    write(path, known())
    before = path.read_bytes()
    path.with_name(".known-good.jsonl.draft").mkdir()
    with pytest.raises(StorageError):
        write(path, KnownGood(ReleaseTable(), NOW))
    assert path.read_bytes() == before


def test_a_draft_that_was_cut_short_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "known-good.jsonl"
    path.with_name(".known-good.jsonl.draft").write_bytes(written()[:100])
    write(path, known())
    assert os.listdir(tmp_path) == [path.name]
    assert Keeper(path).read() == known()


def test_the_last_of_many_is_written_before_it_stops(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "deep" / "known-good.jsonl")
    keeper.start()
    for number in range(100):
        keeper.keep(replace(known(), recent=(Digest.of(str(number).encode()),)))
    keeper.stop(10)
    found = keeper.read()
    assert found is not None
    assert found.recent == (Digest.of(b"99"),)
    assert keeper.problem == ""


def test_a_disk_that_refuses_is_told_and_tried_again(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("not a directory")
    keeper = Keeper(place / "known-good.jsonl")
    keeper.start()
    keeper.keep(known())
    wait_until(lambda: bool(keeper.problem))
    place.unlink()
    keeper.keep(known())
    keeper.stop(10)
    assert keeper.problem == ""
    assert keeper.read() == known()


def wait_until(holds: object) -> None:
    done = threading.Event()
    for _ in range(500):
        if holds():  # type: ignore[operator]
            return
        done.wait(0.01)
    raise AssertionError("it never came")


# Which digests a new process loads first.


def digests(*numbers: int) -> tuple[Digest, ...]:
    return tuple(Digest.of(str(number).encode()) for number in numbers)


def test_recent_digests_come_latest_first_and_once() -> None:
    recent = Recent(most=3)
    for digest in digests(1, 2, 3, 1, 4):
        recent.note(digest)
    assert recent.latest() == digests(4, 1, 3)


def test_what_another_process_used_counts_as_used_before() -> None:
    recent = Recent(most=4)
    for digest in digests(1, 2):
        recent.note(digest)
    recent.remember(digests(5, 2, 6, 7))
    assert recent.latest() == digests(2, 1, 5, 6)
    assert MAX_RECENT >= 1_000
