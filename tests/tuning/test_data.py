"""Rows: every format says the same, and every bad row is named by file and line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import ConfigError, DataError
from foreword.tuning.data import Dataset, Example, load_dataset, split
from foreword.tuning.recipe import DataSettings

ROWS = [{"input": f"in {i}, «{i}»", "target": f"out\n{i}", "kind": "x"} for i in range(20)]


def load(data: Any, **settings: Any) -> Dataset:
    return load_dataset(data, DataSettings(**settings), seed=0)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_all_formats_give_the_same_examples(tmp_path: Path) -> None:
    sources: list[Any] = [jsonl(tmp_path / "a.jsonl", ROWS), ROWS, datasets.Dataset.from_list(ROWS)]
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["input", "target", "kind"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
        sources.append(tmp_path / name)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    sources += [tmp_path / "a.parquet", tmp_path / "saved"]
    loaded = [load(source) for source in sources]
    assert len({str(d.digest) for d in loaded}) == 1
    texts = [[(e.prompt, e.target) for e in (*d.train, *d.held_out)] for d in loaded]
    assert all(t == texts[0] for t in texts)
    assert len(texts[0]) == 20


BAD = {
    "not readable as JSON": b"{oops",
    "the key 'target' occurs twice": b'{"input": "a", "target": "b", "target": "c"}',
    "expected a JSON object": b"[1]",
    "column 'target' has no value": b'{"input": "a", "target": null}',
    "column 'input' has no value": b'{"target": "b"}',
    "column 'target' is empty": b'{"input": "a", "target": " "}',
    "column 'target' holds a list": b'{"input": "a", "target": ["b"]}',
    "column 'target' holds a bool": b'{"input": "a", "target": true}',
    "column 'input' has no value ": b'{"input": NaN, "target": "b"}',
    "half a surrogate pair": b'{"input": "\\ud83d", "target": "b"}',
    "column 'references' should list texts": b'{"input": "a", "target": "b", "references": [1]}',
    "not UTF-8": b'{"input": "\xff", "target": "b"}',
}


@pytest.mark.parametrize("place", [0, 2, 6])
@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_named_by_file_and_line(reason: str, place: int, tmp_path: Path) -> None:
    good = [json.dumps(row).encode() for row in ROWS[:6]]
    lines = [*good[:place], b"", BAD[reason], *good[place:]]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DataError) as caught:
        load(path)
    assert caught.value.code == "data.bad_rows"
    assert f"{path}:{place + 2}: " in str(caught.value)
    assert reason.strip() in str(caught.value)
    assert "data.bad_rows=skip" in str(caught.value)
    skipped = load(path, bad_rows="skip")
    assert [row.source for row in skipped.bad_rows] == [f"{path}:{place + 2}"]
    assert len(skipped.train) + len(skipped.held_out) == 6


def test_many_bad_rows_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "rows.jsonl", [*ROWS, *({"input": "a", "target": ""} for _ in range(9))]
    )
    with pytest.raises(DataError, match=r"^9 bad rows: .*rows\.jsonl:21: .*:25: .*; and 4 more\."):
        load(path)


def test_bad_rows_of_the_held_out_file_are_bad_rows_too(tmp_path: Path) -> None:
    held_out = jsonl(tmp_path / "held.jsonl", [{"input": "a", "target": "b"}, {"input": "c"}])
    with pytest.raises(DataError, match=r"held\.jsonl:2: column 'target' has no value"):
        load(ROWS, eval_path=str(held_out))
    assert len(load(ROWS, eval_path=str(held_out), bad_rows="skip").held_out) == 1


BAD_CSV = {
    "a,b\nc,d,e\n": ("3", "expected 2 fields, got 3"),
    "a,b\nc\n": ("3", "expected 2 fields, got 1"),
    'a,"two\nlines"\nb,c,d\n': ("4", "expected 2 fields, got 3"),
    '"a\nb",\n': ("2", "column 'target' is empty"),
    'a,b\nc,"open\n': ("3", "not readable as CSV"),
    "a,\udcff\n": ("2", "not UTF-8"),
}


@pytest.mark.parametrize("text", BAD_CSV)
def test_a_bad_csv_row_is_named_by_the_line_it_begins_on(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"input,target\n{text}", encoding="utf-8", errors="surrogateescape")
    line, reason = BAD_CSV[text]
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value).startswith(f"1 bad row: {path}:{line}: {reason}")


def test_a_csv_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("input,target,target\na,b,c\n")
    with pytest.raises(DataError, match=r"rows\.csv:1 names the column 'target' twice"):
        load(path)


def test_a_missing_number_in_parquet_is_no_text(tmp_path: Path) -> None:
    table = pa.table({"input": ["a"] * 3, "target": [1.5, float("nan"), None]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"parquet:2: column 'target' has no value; .*:3: "):
        load(tmp_path / "a.parquet")


def test_of_several_splits_train_is_used_and_others_are_named(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(ROWS)
    assert load(datasets.DatasetDict(train=rows, test=rows)).digest == load(ROWS).digest
    datasets.DatasetDict(test=rows, dev=rows).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="no split 'train', only 'test', 'dev'"):
        load(tmp_path / "saved")
    assert load(tmp_path / "saved" / "dev").digest == load(ROWS).digest


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that cannot be read")
def test_a_file_that_cannot_be_read_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").symlink_to("/proc/self/mem")
    with pytest.raises(DataError) as caught:
        load(tmp_path / "rows.jsonl")
    assert caught.value.code == "data.unreadable"


def test_a_missing_column_names_what_is_there() -> None:
    with pytest.raises(DataError, match=r"no column .target.*did you mean .targets"):
        load([{"input": "a", "targets": "b"}])
    assert len(load([{"q": str(i), "a": "b"} for i in range(9)], input="q", target="a").train) == 8


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("a.jsonl", "", "data.empty"),
        ("a.jsonl", '{"input": "a", "target": "b"}\n', "data.too_few"),
        ("a.txt", "hello", "data.format"),
        ("a.parquet", "hello", "data.format"),
    ],
)
def test_files_without_usable_rows_are_refused(
    name: str, text: str, code: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        load(tmp_path / name)
    assert caught.value.code == code


def test_other_things_are_refused(tmp_path: Path) -> None:
    for data, code in ((tmp_path / "no.jsonl", "data.missing"), (5, "data.kind")):
        with pytest.raises(DataError) as caught:
            load(data)
        assert caught.value.code == code
    with pytest.raises(DataError, match="expected a mapping"):
        load(["a", "b"])


def test_templates_fill_columns_and_name_what_is_missing() -> None:
    assert load(ROWS, template="{kind}: {input} {{}}").train[0].prompt.startswith("x: in ")
    with pytest.raises(ConfigError, match=r"\{knd\}.*did you mean \{kind\}"):
        load(ROWS, template="{knd}")
    with pytest.raises(ConfigError, match="is the answer to be learned"):
        load(ROWS, template="{input} {target}")
    with pytest.raises(ConfigError, match="braces"):
        load(ROWS, template="{input")
    with pytest.raises(ConfigError, match="no chat template"):
        load(ROWS, template="chat")


@pytest.mark.parametrize("value", [None, ["x"], float("nan"), True, "\ud83d"])
def test_a_row_that_cannot_fill_the_template_is_bad(value: object) -> None:
    rows = [*ROWS[:4], {**ROWS[4], "kind": value}, *ROWS[5:]]
    with pytest.raises(DataError, match=r"^1 bad row: row:5: column 'kind' "):
        load(rows, template="{kind}: {input}")
    assert not load(rows, template="{input}").bad_rows, (
        "a column that is not used may hold anything"
    )


def test_held_out_rows_can_come_from_a_file_but_not_from_the_training_rows(tmp_path: Path) -> None:
    other = jsonl(tmp_path / "b.jsonl", [{"input": "new", "target": "row"}])
    dataset = load(ROWS, eval_path=str(other))
    assert (len(dataset.train), len(dataset.held_out)) == (20, 1)
    assert dataset.shared_prompts == 0
    reworded = jsonl(tmp_path / "d.jsonl", [{**row, "target": "else"} for row in ROWS[:2]])
    assert load(ROWS, eval_path=str(reworded)).shared_prompts == 2
    assert load(ROWS, eval_path=str(reworded), limit=1).shared_prompts == 1
    same = jsonl(tmp_path / "c.jsonl", ROWS[:1])
    with pytest.raises(DataError, match="training rows too"):
        load(ROWS, eval_path=str(same))


def test_the_digest_tells_datasets_apart() -> None:
    digests = [
        load(ROWS).digest,
        load(ROWS[:19]).digest,
        load([*ROWS[1:], ROWS[0]]).digest,
        load([{**ROWS[0], "target": "else"}, *ROWS[1:]]).digest,
        load(ROWS, template="{input}").digest,
        load_dataset(ROWS, DataSettings(), seed=1).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert load(ROWS, limit=19).digest == digests[1]


def test_duplicates_are_counted_and_stay_on_one_side() -> None:
    dataset = load([*ROWS, *ROWS])
    assert not {e.prompt for e in dataset.train} & {e.prompt for e in dataset.held_out}
    assert dataset.duplicates == len(dataset.train) // 2


def test_a_row_may_list_all_answers_that_count_as_right() -> None:
    dataset = load([{**row, "references": ["x", row["target"]]} for row in ROWS])
    assert dataset.train[0].references == ("x", dataset.train[0].target)
    assert dataset.digest == load(ROWS).digest, "what is trained on is the same"
    plain = load([{**row, "references": "see page 3"} for row in ROWS])
    assert plain.train[0].references == (), "a text of that name is a column like any other"


def test_nothing_usable_says_what_is_wrong_with_the_first_row() -> None:
    with pytest.raises(DataError, match=r"all 3 are bad \(first row:1: column 'input' is empty\)"):
        load([{"input": " ", "target": "b"}] * 3, bad_rows="skip")


def test_the_order_of_keys_changes_nothing() -> None:
    turned = [dict(reversed(row.items())) for row in ROWS]
    assert load(turned).digest == load(ROWS).digest


@given(
    st.lists(st.integers(0, 30), min_size=4, max_size=60).filter(lambda p: len(set(p)) > 3),
    st.floats(0.05, 0.5),
    st.integers(0, 99),
)
def test_a_split_is_disjoint_stable_and_never_empty(
    prompts: list[int], fraction: float, seed: int
) -> None:
    examples = [Example(str(p), "t", f"row:{i}", {}) for i, p in enumerate(prompts)]
    train, held_out = split(examples, fraction, seed)
    assert train
    distinct = len(set(prompts))
    assert len({e.prompt for e in held_out}) == max(1, round(fraction * distinct))
    assert {e.source for e in train} | {e.source for e in held_out} == {e.source for e in examples}
    assert not {e.prompt for e in train} & {e.prompt for e in held_out}
    assert (train, held_out) == split(examples, fraction, seed)
