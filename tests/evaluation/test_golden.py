"""A golden set is read strictly, has one digest for one meaning, and splits without leaking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import CompatibilityError, DataError, UsageError
from foreword.evaluation.golden import (
    OFF_TASK,
    SAFETY,
    GoldenSet,
    Header,
    add_from_logs,
    inspect_golden,
    matches,
    read_golden,
    require_match,
    specialty_of,
    split,
    write_golden,
)
from foreword.evaluation.golden import reading as reading_module
from foreword.evaluation.metrics.suite import judged_rows
from foreword.evaluation.runs.answers import Answer
from tests.artifact.samples import sample
from tests.evaluation.samples import HEADER, golden, row, write_lines

FULL: dict[str, Any] = {
    "id": "r1", "input": "Grüße 🎉", "references": ["Hallo", "Hi"], "cohort": "greeting",
    "language": "de", "specialty": "support", "label": "greet", "fields": {"a": {"b": [1, 2.5]}},
    "context": "a text", "tags": ["safety", "own"],
    "checks": [{"kind": "contains", "values": ["Hallo"], "ignore_case": True}],
}  # fmt: skip


def read(tmp_path: Path, *values: Any) -> GoldenSet:
    return read_golden(write_lines(tmp_path / "set.jsonl", *values))


def test_a_set_survives_writing_and_reading(tmp_path: Path) -> None:
    columns = {"id": "r2", "columns": {"name": "x", "input": "y"}}
    talk = {"id": "r3", "messages": [{"role": "system", "content": "s"},
                                     {"role": "user", "content": "u"}]}  # fmt: skip
    first = read(tmp_path, HEADER, FULL, columns, talk)
    write_golden(first, tmp_path / "again.jsonl")
    assert read_golden(tmp_path / "again.jsonl") == first
    assert first.rows[1].cohort == "all"
    assert first.rows[1].language == "en"
    assert first.rows[2].text == "s\nu"


BAD_ROWS = {
    "no JSON": ("{", "not readable as JSON"),
    "a list": ([1], "expected an object"),
    "no id": ({"input": "x"}, "row.id"),
    "an id with a space": ({"id": "a b", "input": "x"}, "row.id"),
    "no input": ({"id": "a"}, "exactly one of input"),
    "two inputs": ({"id": "a", "input": "x", "columns": {"b": "y"}}, "exactly one of input"),
    "input and messages": (
        {"id": "a", "input": "x", "messages": [{"role": "user", "content": "y"}]},
        "exactly one of input",
    ),
    "a blank input": ({"id": "a", "input": "  "}, "expected some text"),
    "a number for a column": ({"id": "a", "columns": {"b": 1}}, "expected text"),
    "a role nobody has": ({"id": "a", "messages": [{"role": "x", "content": "y"}]}, "role"),
    "the assistant last": (
        {"id": "a", "messages": [{"role": "assistant", "content": "y"}]}, "end with one of the user",
    ),
    "an unknown field": ({"id": "a", "input": "x", "refs": []}, "'refs' is not known"),
    "another language": ({"id": "a", "input": "x", "language": "fr"}, "the set's languages"),
    "an unknown check": ({"id": "a", "input": "x", "checks": [{"kind": "eval"}]}, "expected one of"),
    "an unknown option": (
        {"id": "a", "input": "x", "checks": [{"kind": "exact", "typo": 1}]}, "'typo' is not known",
    ),
    "nothing to be exactly": (
        {"id": "a", "input": "x", "checks": [{"kind": "exact"}]}, "and there are neither",
    ),
    "a broken pattern": (
        {"id": "a", "input": "x", "checks": [{"kind": "regex", "pattern": "("}]}, "regular expression",
    ),
    "a broken schema": (
        {"id": "a", "input": "x", "checks": [{"kind": "json_schema", "schema": {"type": 5}}]},
        "not a JSON Schema",
    ),
    "a line break in a tag": ({"id": "a", "input": "x", "tags": ["a\nb"]}, "short words"),
    "a key twice": ('{"id": "a", "id": "b", "input": "x"}', "occurs twice"),
    "NaN": ('{"id": "a", "input": "x", "fields": {"a": NaN}}', "not a JSON number"),
    "half a character": ('{"id": "a", "input": "\\ud800"}', "cannot be written as JSON"),
    "a number beyond doubles": ('{"id": "a", "input": "x", "fields": {"a": 1e400}}', "not a JSON"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_bad_row_is_refused_with_its_file_and_line(bad: str, tmp_path: Path) -> None:
    line, reason = BAD_ROWS[bad]
    with pytest.raises(DataError, match="bad line") as caught:
        read(tmp_path, HEADER, {"id": "good", "input": "good"}, line)
    assert f"{tmp_path / 'set.jsonl'}:3: " in str(caught.value)
    assert reason in str(caught.value)
    assert caught.value.code == "golden.bad_rows"


BAD_HEADERS = {
    "a row": {"id": "a", "input": "x"},
    "another schema": {**HEADER, "foreword_golden": 2},
    "a bad version": {**HEADER, "version": "1"},
    "a bad name": {**HEADER, "name": "Acme Support"},
    "a specialty of two words": {**HEADER, "specialty": "a b"},
    "no language": {**HEADER, "languages": []},
    "a language that is none": {**HEADER, "languages": ["english!"]},
    "a field nobody knows": {**HEADER, "owner": "me"},
}


@pytest.mark.parametrize("bad", BAD_HEADERS)
def test_a_bad_header_is_refused(bad: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set\.jsonl:1: "):
        read(tmp_path, BAD_HEADERS[bad], {"id": "a", "input": "x"})


@pytest.mark.parametrize(
    "second", [{"id": "a", "input": "other"}, {"id": "b", "input": "same"}], ids=["id", "input"]
)
def test_duplicates_are_refused(second: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="occurs in line 2 already"):
        read(tmp_path, HEADER, {"id": "a", "input": "same"}, second)


def test_every_bad_line_is_found_and_counted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "s.jsonl", HEADER, *["{"] * 7, FULL)
    found, problems = inspect_golden(path)
    assert found is not None
    assert len(found.rows) == 1
    assert [p.source for p in problems] == [f"{path}:{n}" for n in range(2, 9)]
    with pytest.raises(DataError, match=r"7 bad lines.*and 2 more"):
        read_golden(path)


@pytest.mark.parametrize("content", ["", "\n\n", json.dumps(HEADER) + "\n"])
def test_a_set_without_rows_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(content)
    with pytest.raises(DataError):
        read_golden(path)


def test_a_missing_file_a_link_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        read_golden(tmp_path / "none.jsonl")
    (tmp_path / "link.jsonl").symlink_to(write_lines(tmp_path / "s.jsonl", HEADER, FULL))
    with pytest.raises(DataError, match="is a link"):
        read_golden(tmp_path / "link.jsonl")
    (tmp_path / "s.jsonl").write_bytes(json.dumps(HEADER).encode() + b"\n\xff\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_golden(tmp_path / "s.jsonl")


def test_too_long_a_line_and_too_many_rows_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="at most"):
        read(tmp_path, HEADER, {"id": "a", "input": "x" * (1 << 20)})
    monkeypatch.setattr(reading_module, "MAX_ROWS", 1)
    with pytest.raises(DataError, match="at most 1 rows"):
        read(tmp_path, HEADER, {"id": "a", "input": "x"}, {"id": "b", "input": "y"})


def test_the_digest_is_of_the_meaning_not_of_the_bytes(tmp_path: Path) -> None:
    first = read(tmp_path, HEADER, FULL, {"id": "r2", "input": "x"})
    spaced = json.dumps(FULL, indent=None, separators=(" , ", " : ")).replace("\n", "")
    other = read(tmp_path, HEADER, {"cohort": "all", "language": "en", "tags": [], "input": "x",
                                    "id": "r2"}, spaced)  # fmt: skip
    assert first.digest == other.digest


@pytest.mark.parametrize(
    "change",
    [
        {"input": "Grüsse"}, {"references": ["Hallo"]}, {"cohort": "other"}, {"label": "x"},
        {"tags": ["own"]}, {"fields": {"a": {"b": [1, 2.6]}}}, {"context": "another"},
        {"checks": []}, {"id": "r2"}, {"language": "en"}, {"specialty": "sales"},
    ],
)  # fmt: skip
def test_whatever_changes_in_a_row_changes_the_digest(
    change: dict[str, Any], tmp_path: Path
) -> None:
    before = read(tmp_path, HEADER, FULL).digest
    assert read(tmp_path, HEADER, {**FULL, **change}).digest != before


@pytest.mark.parametrize("change", [{"version": "1.0.1"}, {"specialty": "sales"}, {"name": "b"}])
def test_the_digest_covers_the_header(change: dict[str, str], tmp_path: Path) -> None:
    row_of = {"id": "a", "input": "x", "specialty": "support"}
    before = read(tmp_path, HEADER, row_of).digest
    assert read(tmp_path, {**HEADER, **change}, row_of).digest != before


def many(cohorts: dict[str, int]) -> GoldenSet:
    return golden(
        *(row(f"{c}-{i}", f"{c} {i}", cohort=c) for c, n in cohorts.items() for i in range(n))
    )


def test_a_split_holds_out_its_share_of_every_cohort() -> None:
    whole = many({"a": 400, "b": 200, "c": 2, "d": 1})
    held, rest = split(whole, 0.25)
    assert {r.id for r in held.rows} | {r.id for r in rest.rows} == {r.id for r in whole.rows}
    assert not {r.id for r in held.rows} & {r.id for r in rest.rows}
    shares = {c: sum(r.cohort == c for r in held.rows) for c in "abc"}
    assert 70 <= shares["a"] <= 130
    assert 33 <= shares["b"] <= 67
    assert shares["c"] == 1
    assert (held.header.name, rest.header.name) == ("acme/support.held", "acme/support.rest")


@given(st.integers(20, 60), st.integers(1, 30), st.floats(0.1, 0.9))
def test_added_rows_move_no_other_row(before: int, added: int, share: float) -> None:
    small, large = many({"a": before}), many({"a": before + added})
    sides = [{r.id for r in split(each, share)[0].rows} for each in (small, large)]
    moved = (sides[0] ^ sides[1]) & {r.id for r in small.rows}
    assert len(moved) <= 1  # of a cohort that was wholly on one side, the row at the border
    assert split(small, share, salt="x") == split(small, share, salt="x")


def test_a_split_with_an_empty_side_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be split"):
        split(many({"a": 1}), 0.5)
    with pytest.raises(UsageError, match="between 0 and 1"):
        split(many({"a": 9}), 1.0)


def test_a_set_for_another_specialty_does_not_fit() -> None:
    manifest = sample(name="acme/support").manifest
    assert specialty_of(manifest) == "support"
    said = sample(training={"settings": {"specialty": "billing"}}).manifest
    assert specialty_of(said) == "billing"
    assert matches(Header("safety", "1.0.0", "any"), "support")
    require_match(Header("s", "1.0.0", "support"), manifest)
    with pytest.raises(CompatibilityError, match="is for 'support'") as caught:
        require_match(Header("s", "1.0.0", "billing"), manifest)
    assert caught.value.code == "golden.specialty"


EXAMPLES = Path(__file__).parents[2] / "examples" / "golden"


def test_the_example_sets_are_sound() -> None:
    sets = {path.stem: read_golden(path) for path in EXAMPLES.glob("*.jsonl")}
    assert {name: len(each.rows) for name, each in sets.items()} == {
        "tickets": 60, "off-task": 20, "safety": 12,
    }  # fmt: skip
    assert len(sets["off-task"].tagged(OFF_TASK)) == 20
    assert len(sets["safety"].tagged(SAFETY)) == 12
    docs = EXAMPLES.parents[1] / "docs" / "evaluation.md"
    assert str(sets["tickets"].digest) in docs.read_text(encoding="utf-8")
    good = {r.id: Answer(r.references[0], None) for r in sets["tickets"].rows}
    assert all(all(o.passed for o in j.outcomes) for j in judged_rows(sets["tickets"].rows, good))


def test_a_log_gives_drafts_with_what_people_said_of_them(tmp_path: Path) -> None:
    log = write_lines(
        tmp_path / "log.jsonl",
        {"id": "1", "input": "How?", "answer": "So.", "feedback": "up", "latency": 3},
        {"id": "2", "input": "Why?", "answer": "Wrong.", "tenant": "acme"},
        {"id": "3", "input": "how? ", "answer": "again"},
        {"id": "4", "input": "Known", "answer": "x"},
        {"id": "2", "feedback": "down", "correction": "Because."},
        {"id": "5", "input": "Who?", "answer": "Bad.", "feedback": "down"},
        {"id": "6", "input": "  "},
        "{",
        {"id": "7", "input": "What?", "feedback": "meh"},
        {"note": "neither"},
    )
    drafts = add_from_logs(golden(row("k", "known")), log, "1.1.0")
    rows = {r.text: r for r in drafts.golden.rows}
    assert drafts.golden.header.version == "1.1.0"
    assert (drafts.added, drafts.duplicates, len(drafts.problems)) == (3, 2, 4)
    assert rows["How?"].references == ("So.",)
    assert rows["Why?"].references == ("Because.",)
    assert rows["Who?"].references == ()
    assert rows["Who?"].tags == ("draft", "thumbs_down")
    assert {p.source.rpartition(":")[2] for p in drafts.problems} == {"7", "8", "9", "10"}
    write_golden(drafts.golden, tmp_path / "new.jsonl")
    assert read_golden(tmp_path / "new.jsonl") == drafts.golden


def test_the_same_log_twice_adds_nothing(tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", {"input": "A"}, {"input": "B"})
    once = add_from_logs(golden(row()), log, "1.1.0")
    twice = add_from_logs(once.golden, log, "1.2.0")
    assert (once.added, twice.added, twice.duplicates) == (2, 0, 2)
