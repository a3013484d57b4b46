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
    "not JSON": b"{oops",
    "expected a JSON object": b"[1]",
    "no value in column 'target'": b'{"input": "a", "target": null}',
    "column 'target' is empty": b'{"input": "a", "target": " "}',
    "column 'target' holds a list": b'{"input": "a", "target": ["b"]}',
    "not UTF-8": b'{"input": "\xff", "target": "b"}',
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_named_by_file_and_line(reason: str, tmp_path: Path) -> None:
    good = [json.dumps(row).encode() for row in ROWS[:6]]
    lines = [*good[:2], b"", BAD[reason], *good[2:]]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DataError) as caught:
        load(path)
    assert caught.value.code == "data.bad_rows"
    assert f"{path}:4: " in str(caught.value)
    assert reason in str(caught.value)
    skipped = load(path, bad_rows="skip")
    assert [row.source for row in skipped.bad_rows] == [f"{path}:4"]
    assert len(skipped.train) + len(skipped.held_out) == 6


def test_a_csv_row_with_another_number_of_fields_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('input,target\na,"two\nlines"\nb,c,d\ne,f\n')
    with pytest.raises(DataError, match=r"rows\.csv:4: expected 2 fields, got 3"):
        load(path)


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
    with pytest.raises(ConfigError, match="braces"):
        load(ROWS, template="{input")
    with pytest.raises(ConfigError, match="no chat template"):
        load(ROWS, template="chat")


def test_held_out_rows_can_come_from_a_file_but_not_from_the_training_rows(tmp_path: Path) -> None:
    other = jsonl(tmp_path / "b.jsonl", [{"input": "new", "target": "row"}])
    dataset = load(ROWS, eval_path=str(other))
    assert (len(dataset.train), len(dataset.held_out)) == (20, 1)
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
    assert held_out
    assert {e.source for e in train} | {e.source for e in held_out} == {e.source for e in examples}
    assert not {e.prompt for e in train} & {e.prompt for e in held_out}
    assert (train, held_out) == split(examples, fraction, seed)
