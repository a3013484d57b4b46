"""Data: every format gives the same examples, a bad row is named, and no row is on both sides."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import ConfigError, DataError
from foreword.tuning.data import Dataset, Example, digest, load_dataset, split
from foreword.tuning.recipe import DataSettings
from tests.tiny import tokenizer

ROWS = [{"input": f"question {i}", "target": f"answer {i}"} for i in range(10)]
ROWS[3] = {"input": 'with "quotes", a comma\nand a line', "target": "äöü \u2028 🎉"}
GOOD = (
    '{"input": "a", "target": "b"}\n{"input": "c", "target": "d"}\n{"input": "e", "target": "f"}\n'
)


def load(data: Any, *, seed: int = 0, **settings: Any) -> Dataset:
    return load_dataset(data, DataSettings(**settings), seed=seed)


def refusal(data: Any, **settings: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        load(data, **settings)
    return caught.value


def write(tmp_path: Path, text: str | bytes, name: str = "rows.jsonl") -> Path:
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def as_jsonl(path: Path) -> Any:
    return write(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in ROWS))


def as_jsonl_with_mark_and_blank_lines(path: Path) -> Any:
    return write(path, b"\xef\xbb\xbf" + "\r\n\n".join(map(json.dumps, ROWS)).encode())


def _separated(path: Path, delimiter: str, ending: str) -> Any:
    file = path / f"rows.{ending}"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, ["input", "target"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return file


def as_csv(path: Path) -> Any:
    return _separated(path, ",", "csv")


def as_csv_with_mark(path: Path) -> Any:
    file = _separated(path, ",", "csv")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    return file


def as_tsv(path: Path) -> Any:
    return _separated(path, "\t", "tsv")


def as_parquet(path: Path) -> Any:
    pq.write_table(pa.Table.from_pylist(ROWS), path / "rows.parquet")
    return path / "rows.parquet"


def as_saved_dataset(path: Path) -> Any:
    datasets.Dataset.from_list(ROWS).save_to_disk(path / "saved")
    return path / "saved"


def as_saved_dataset_with_splits(path: Path) -> Any:
    inner = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"test": inner.select([0]), "train": inner}).save_to_disk(path / "saved")
    return path / "saved"


def as_text_path(path: Path) -> Any:
    return str(as_jsonl(path))


def as_list(path: Path) -> Any:
    return ROWS


def as_generator(path: Path) -> Any:
    return (row for row in ROWS)


def as_dataset(path: Path) -> Any:
    return datasets.Dataset.from_list(ROWS)


FORMATS: Sequence[Callable[[Path], Any]] = (
    as_jsonl,
    as_jsonl_with_mark_and_blank_lines,
    as_csv,
    as_csv_with_mark,
    as_tsv,
    as_parquet,
    as_saved_dataset,
    as_saved_dataset_with_splits,
    as_text_path,
    as_list,
    as_generator,
    as_dataset,
)


@pytest.mark.parametrize("form", FORMATS, ids=lambda f: f.__name__)
def test_the_same_rows_in_any_format_are_the_same_dataset(
    form: Callable[[Path], Any], tmp_path: Path
) -> None:
    expected, found = load(ROWS), load(form(tmp_path))

    for wanted, got in ((expected.train, found.train), (expected.held_out, found.held_out)):
        assert [(e.prompt, e.target, e.columns) for e in got] == [
            (e.prompt, e.target, e.columns) for e in wanted
        ]
    assert found.digest == expected.digest
    assert found.bad_rows == ()


def test_an_example_knows_its_prompt_target_columns_and_line(tmp_path: Path) -> None:
    file = write(
        tmp_path, '{"q": "a", "a": 3, "note": null, "tag": true}\n\n{"q": "c", "a": "d"}\n'
    )
    loaded = load(file, input="q", target="a")
    first, second = sorted((*loaded.train, *loaded.held_out), key=lambda e: e.source)

    assert (first.prompt, first.target, first.source) == ("a\n", "3", f"{file}:1")
    assert first.columns == {"q": "a", "a": "3", "tag": "True", "input": "a"}
    assert second.source == f"{file}:3"


BAD_JSONL = {
    "not JSON": (b"nope\n", "not JSON"),
    "cut JSON": (b'{"input": "a", "tar\n', "not JSON"),
    "deep JSON": (b"[" * 100_000 + b"\n", "not JSON"),
    "endless number": (b'{"input": ' + b"1" * 9000 + b', "target": "b"}\n', "not JSON"),
    "a list": (b'["a", "b"]\n', "expected a JSON object, got a list"),
    "a string": (b'"input"\n', "expected a JSON object, got a str"),
    "null": (b"null\n", "expected a JSON object, got a NoneType"),
    "missing target": (b'{"input": "a"}\n', "no value in column 'target'"),
    "null target": (b'{"input": "a", "target": null}\n', "no value in column 'target'"),
    "null input": (b'{"input": null, "target": "b"}\n', "no value in column 'input'"),
    "empty target": (b'{"input": "a", "target": ""}\n', "column 'target' is empty"),
    "blank target": (b'{"input": "a", "target": " \\n"}\n', "column 'target' is empty"),
    "list target": (b'{"input": "a", "target": ["b"]}\n', "column 'target' holds a list"),
    "object input": (b'{"input": {}, "target": "b"}\n', "column 'input' holds a dict"),
    "half a pair": (b'{"input": "a", "target": "\\ud83d"}\n', "column 'target' holds half a"),
    "not UTF-8": (b'{"input": "caf\xe9", "target": "b"}\n', "not UTF-8 text"),
}


@pytest.mark.parametrize(("line", "reason"), BAD_JSONL.values(), ids=BAD_JSONL)
def test_a_bad_jsonl_row_is_refused_with_file_and_line(
    line: bytes, reason: str, tmp_path: Path
) -> None:
    file = write(tmp_path, GOOD.encode() + b"\n" + line + GOOD.encode())
    error = refusal(file)

    assert error.code == "data.bad_rows"
    assert f"1 bad row: {file}:5: {reason}" in str(error)
    assert "data.bad_rows=skip" in str(error)


@pytest.mark.parametrize(("line", "reason"), BAD_JSONL.values(), ids=BAD_JSONL)
def test_a_bad_jsonl_row_is_skipped_and_reported_when_asked(
    line: bytes, reason: str, tmp_path: Path
) -> None:
    loaded = load(write(tmp_path, GOOD.encode() + line), bad_rows="skip")

    assert loaded.digest == load(write(tmp_path, GOOD, "good.jsonl")).digest
    (bad,) = loaded.bad_rows
    assert bad.source.endswith("rows.jsonl:4")
    assert reason in bad.reason


BAD_CSV = {
    "too many fields": (b'input,target\na,b\n"two\nlines",c\nd,e,f\ng,h\n', 5, "expected 2 fields"),
    "too few fields": (b"input,target\na,b\nc\nd,e\n", 3, "expected 2 fields, got 1"),
    "after blank lines": (b"input,target\n\n\na,b,c\nd,e\nf,g\n", 4, "expected 2 fields, got 3"),
    "bad row of two lines": (b'input,target\na,b\n"x\ny",c,d\ne,f\n', 3, "expected 2 fields"),
    "empty target": (b'input,target\n"a\nb\nc",d\ne,\nf,g\n', 5, "column 'target' is empty"),
    "text after a quote": (b'input,target\na,b\n"c"d,e\nf,g\n', 3, "not readable as CSV"),
    "quote never closed": (b'input,target\na,b\nc,d\n"e,f\ng,h\n', 4, "not readable as CSV"),
    "not UTF-8": (b"input,target\na,b\ncaf\xe9,d\ne,f\n", 3, "not UTF-8 text"),
    "not UTF-8 inside quotes": (b'input,target\na,b\n"c\n\xff",d\ne,f\n', 3, "not UTF-8 text"),
}


@pytest.mark.parametrize(("text", "line", "reason"), BAD_CSV.values(), ids=BAD_CSV)
def test_a_bad_csv_row_is_named_by_the_line_it_starts_on(
    text: bytes, line: int, reason: str, tmp_path: Path
) -> None:
    file = write(tmp_path, text, "rows.csv")
    error = refusal(file)

    assert error.code == "data.bad_rows"
    assert f"1 bad row: {file}:{line}: {reason}" in str(error)


def test_a_csv_row_that_is_not_utf8_takes_no_other_row_with_it(tmp_path: Path) -> None:
    text = b'input,target\na,b\n"c\n\xff",d\ne,f\n"g\n",h\n'
    loaded = load(write(tmp_path, text, "rows.csv"), bad_rows="skip")

    assert {e.target for e in (*loaded.train, *loaded.held_out)} == {"b", "f", "h"}
    assert len(loaded.bad_rows) == 1


def test_a_csv_header_that_is_not_utf8_does_not_make_the_first_row_the_header(
    tmp_path: Path,
) -> None:
    text = b"input,target,caf\xe9\na,b,1\nc,d,2\n"
    file = write(tmp_path, text, "rows.csv")

    assert f"1 bad row: {file}:1: not UTF-8 text" in str(refusal(file))
    loaded = load(file, bad_rows="skip")
    assert {e.target for e in (*loaded.train, *loaded.held_out)} == {"b", "d"}


def test_blank_lines_before_a_csv_header_are_not_the_header(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "\n\ninput,target\na,b\nc,d\n", "rows.csv"))

    assert {e.target for e in (*loaded.train, *loaded.held_out)} == {"b", "d"}


def test_a_quoted_newline_does_not_shift_the_lines_of_later_rows(tmp_path: Path) -> None:
    file = write(tmp_path, 'input,target\n"a\nb\n\nc",x\nd,y\n', "rows.csv")
    loaded = load(file)

    lines = {e.columns["input"]: e.source for e in (*loaded.train, *loaded.held_out)}
    assert lines == {"a\nb\n\nc": f"{file}:2", "d": f"{file}:6"}


def test_many_bad_rows_are_counted_and_the_first_five_shown(tmp_path: Path) -> None:
    message = str(refusal(write(tmp_path, GOOD + "x\n" * 8)))

    assert message.startswith("8 bad rows: ")
    assert "rows.jsonl:8:" in message
    assert "rows.jsonl:9:" not in message
    assert "; and 3 more" in message


def test_a_row_in_memory_that_is_no_mapping_is_numbered() -> None:
    assert "row:11: expected a mapping, got str" in str(refusal([*ROWS, "text"]))


def test_bad_held_out_rows_count_too(tmp_path: Path) -> None:
    held_out = write(tmp_path, '{"input": "z", "target": "z"}\nnope\n', "eval.jsonl")

    assert "eval.jsonl:2: not JSON" in str(refusal(ROWS, eval_path=str(held_out)))
    assert len(load(ROWS, eval_path=str(held_out), bad_rows="skip").bad_rows) == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"input": "inptu"}, ("no column 'inptu'", "did you mean 'input'?")),
        ({"target": "targets"}, ("no column 'targets'", "did you mean 'target'?")),
        ({"target": "zzz"}, ("no column 'zzz'", "found 'input', 'target'", "data.target")),
    ],
)
def test_a_missing_column_names_what_is_there(
    settings: dict[str, str], says: tuple[str, ...], tmp_path: Path
) -> None:
    file = as_jsonl(tmp_path)
    error = refusal(file, **settings)

    assert error.code == "data.missing_column"
    assert str(error).startswith(f"{file}:1 ")
    for part in says:
        assert part in str(error)


@pytest.mark.parametrize("policy", ["refuse", "skip"])
def test_a_missing_column_is_found_even_after_a_bad_first_row(policy: str, tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "nope\n" + GOOD), target="answer", bad_rows=policy)

    assert error.code == "data.missing_column"
    assert "rows.jsonl:2 has no column 'answer'" in str(error)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", b""),
        ("rows.jsonl", b"\n\n"),
        ("rows.csv", b""),
        ("rows.csv", b"input,target\n"),
    ],
)
def test_an_empty_file_is_an_error_that_names_it(name: str, text: bytes, tmp_path: Path) -> None:
    error = refusal(write(tmp_path, text, name))

    assert error.code == "data.empty"
    assert name in str(error)


def test_no_rows_in_memory_and_an_empty_held_out_file_are_errors(tmp_path: Path) -> None:
    assert refusal([]).code == "data.empty"
    error = refusal(ROWS, eval_path=str(write(tmp_path, "", "eval.jsonl")))
    assert error.code == "data.empty"
    assert "eval.jsonl" in str(error)


def test_nothing_is_left_when_every_row_is_skipped(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, "x\ny\n"), bad_rows="skip").code == "data.empty"


def test_what_cannot_be_read_as_data_says_why(tmp_path: Path) -> None:
    cases = {
        "data.missing": tmp_path / "none.jsonl",
        "data.format": write(tmp_path, "x", "rows.txt"),
        "data.kind": 7,
    }
    assert {refusal(data).code for data in cases.values()} == set(cases)
    for code, data in cases.items():
        assert refusal(data).code == code
    assert ".jsonl" in str(refusal(cases["data.format"]))
    assert refusal(write(tmp_path, "x", "rows")).code == "data.format"
    assert refusal(write(tmp_path, "PAR1 no", "rows.parquet")).code == "data.format"
    empty = tmp_path / "directory"
    empty.mkdir()
    assert refusal(empty).code == "data.format"


def test_a_missing_held_out_file_is_named(tmp_path: Path) -> None:
    error = refusal(ROWS, eval_path=str(tmp_path / "none.csv"))

    assert error.code == "data.missing"
    assert "none.csv" in str(error)


def test_a_template_places_columns_and_keeps_braces() -> None:
    rows = [{"input": f"{i}", "target": "x", "tone": "kind {input}"} for i in range(2)]
    loaded = load(rows, template='{{"q": "{input}", "t": "{tone}"}}')

    prompts = {e.prompt for e in (*loaded.train, *loaded.held_out)}
    assert prompts == {'{"q": "0", "t": "kind {input}"}', '{"q": "1", "t": "kind {input}"}'}


def test_the_template_place_input_is_the_chosen_input_column() -> None:
    rows = [{"q": f"q{i}", "input": "other", "target": "x"} for i in range(2)]
    loaded = load(rows, input="q")

    assert {e.prompt for e in (*loaded.train, *loaded.held_out)} == {"q0\n", "q1\n"}


@pytest.mark.parametrize(
    ("template", "code", "says"),
    [
        ("{inputs}", "prompt.column", "did you mean {input}?"),
        ("{zzzz}", "prompt.column", "columns are input, target"),
        ("{}", "prompt.column", "columns are"),
        ("{input", "prompt.template", "write {{ and }} for braces"),
        ("input}", "prompt.template", "write {{ and }} for braces"),
        ("chat", "prompt.no_chat_template", "no chat template"),
    ],
)
def test_a_template_that_cannot_be_filled_says_how_to_mend_it(
    template: str, code: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_dataset(ROWS, DataSettings(template=template), seed=0, tokenizer=tokenizer())
    assert caught.value.code == code
    assert says in str(caught.value)


def test_a_template_does_not_reach_into_objects() -> None:
    with pytest.raises(ConfigError) as caught:
        load(ROWS, template="{input.__class__}")
    assert caught.value.code == "prompt.column"


def test_chat_uses_the_template_of_the_model() -> None:
    speaker = tokenizer()
    speaker.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %} [bot]"
    )
    loaded = load_dataset(ROWS[:2], DataSettings(template="chat"), seed=0, tokenizer=speaker)

    prompts = {e.prompt for e in (*loaded.train, *loaded.held_out)}
    assert prompts == {"[user] question 0 [bot]", "[user] question 1 [bot]"}


def examples(names: Sequence[int]) -> list[Example]:
    return [Example(f"p{n}", f"t{i}", f"row:{i}", {}) for i, n in enumerate(names)]


PROMPTS = st.lists(st.integers(0, 12), min_size=2, max_size=40).filter(lambda n: len(set(n)) > 1)
FRACTIONS = st.floats(0.01, 0.6)
SEEDS = st.integers(0, 2**31 - 1)


@given(PROMPTS, FRACTIONS, SEEDS)
def test_a_split_loses_nothing_and_no_prompt_is_on_both_sides(
    names: list[int], fraction: float, seed: int
) -> None:
    rows = examples(names)
    if round(fraction * len(set(names))) >= len(set(names)):
        return
    train, held_out = split(rows, fraction, seed)

    assert train
    assert held_out
    assert not {e.prompt for e in train} & {e.prompt for e in held_out}
    assert sorted((*train, *held_out), key=rows.index) == rows
    for side in (train, held_out):
        assert side == sorted(side, key=rows.index)


@given(PROMPTS, FRACTIONS, SEEDS)
def test_a_split_is_the_same_for_the_same_seed_whatever_the_targets(
    names: list[int], fraction: float, seed: int
) -> None:
    if round(fraction * len(set(names))) >= len(set(names)):
        return
    once = split(examples(names), fraction, seed)[1]
    others = [Example(e.prompt, "other", "elsewhere", {}) for e in examples(names)]

    assert split(examples(names), fraction, seed)[1] == once
    assert [e.prompt for e in split(others, fraction, seed)[1]] == [e.prompt for e in once]


def test_a_split_holds_out_the_asked_share_and_depends_on_the_seed() -> None:
    rows = examples(range(100))

    assert len(split(rows, 0.2, 0)[1]) == 20
    assert split(rows, 0.2, 0) != split(rows, 0.2, 1)


@pytest.mark.parametrize(
    ("names", "fraction"), [([], 0.1), ([1], 0.1), ([1, 1, 1], 0.1), ([1, 2], 0.9)]
)
def test_too_few_different_inputs_cannot_be_split(names: list[int], fraction: float) -> None:
    with pytest.raises(DataError, match=r"data\.eval_path") as caught:
        split(examples(names), fraction, 0)
    assert caught.value.code == "data.too_few"


def test_held_out_rows_from_a_file_take_nothing_from_the_training_rows(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD, "eval.jsonl")
    loaded = load(ROWS, eval_path=str(file))

    assert [e.target for e in loaded.train] == [row["target"] for row in ROWS]
    assert [e.target for e in loaded.held_out] == ["b", "d", "f"]


def test_a_training_row_among_the_held_out_rows_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD + json.dumps(ROWS[4]) + "\n", "eval.jsonl")
    error = refusal(ROWS, eval_path=str(file))

    assert error.code == "data.leak"
    assert "1 held-out rows" in str(error)
    assert "eval.jsonl:4" in str(error)


def test_a_row_beyond_the_limit_is_no_leak(tmp_path: Path) -> None:
    file = write(tmp_path, json.dumps(ROWS[4]) + "\n", "eval.jsonl")

    assert len(load(ROWS, eval_path=str(file), limit=4).train) == 4


def test_a_limit_counts_good_rows_only(tmp_path: Path) -> None:
    file = write(tmp_path, "nope\n" + GOOD)
    loaded = load(file, limit=2, bad_rows="skip")

    assert {e.columns["input"] for e in (*loaded.train, *loaded.held_out)} == {"a", "c"}


def test_repeated_rows_are_counted() -> None:
    assert load(ROWS).duplicates == 0
    held_out = load(ROWS).held_out[0].columns["input"]
    twice = [row for row in ROWS if row["input"] != held_out]
    assert load([*ROWS, twice[0], twice[0], twice[1]]).duplicates == 3


def test_the_digest_names_exactly_what_is_used() -> None:
    rows = examples(range(6))
    base = digest(rows, 4)

    assert digest(rows, 4) == base
    assert (
        digest([Example(e.prompt, e.target, "moved file:9", {"a": "b"}) for e in rows], 4) == base
    )
    assert digest(rows, 3) != base, "a row moved from training to held-out"
    assert digest(rows[::-1], 4) != base, "another order"
    assert digest(rows[:5], 4) != base, "a row less"
    for i, row in enumerate(rows):
        for changed in (
            Example(row.prompt + " ", row.target, row.source, {}),
            Example(row.prompt, row.target + " ", row.source, {}),
            Example(row.prompt + row.target[0], row.target[1:], row.source, {}),
        ):
            assert digest([*rows[:i], changed, *rows[i + 1 :]], 4) != base


def test_the_digest_of_a_dataset_follows_rows_template_and_split() -> None:
    base = load(ROWS).digest
    changed = [*ROWS[:-1], {**ROWS[-1], "target": "another"}]

    others = [
        load(changed).digest,
        load(ROWS, seed=1).digest,
        load(ROWS, template="{input}").digest,
        load(ROWS, limit=9).digest,
        load(ROWS[::-1]).digest,
    ]
    assert base not in others
    assert len(set(others)) == len(others)
