"""JSON that is wrong, ambiguous or made to be expensive."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import BadRequest
from foreword.serving.wire.bodies import read_object

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), values, max_size=4), st.booleans())  # noqa: E501  # fmt: skip
def test_every_object_is_read_as_it_is(value: dict[str, object], ascii_only: bool) -> None:
    assert (
        read_object(json.dumps(value, ensure_ascii=ascii_only).encode(errors="replace"))
        or not value
    )


@given(st.binary(max_size=200) | st.text('{}[]",:\\ ueE019.-n', max_size=60).map(str.encode))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with suppress(BadRequest):
        assert isinstance(read_object(data), dict)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b'"a"', b"{", b"{]", b'{"a":1,}', b"{'a':1}", b"\xff\xfe", b"\xef\xbb\xbf{}",
        b'{"a":1,"a":1}', b'{"b":{"a":1,"a":2}}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}',
        b'{"a":1e999}', b'{"a":' + b"9" * 33 + b"}", b'{"a":0.' + b"1" * 40 + b"}",
        b'{"a":"\\ud800"}', b'{"\\ud800":1}', b'{"a":"\\uDC00\\ud800"}', b'{"a":"\xed\xa0\x80"}',
    ],
)  # fmt: skip
def test_what_is_not_one_unambiguous_object_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read_object(data)
    assert caught.value.code == "request.json"


def test_brackets_commas_and_quotes_inside_texts_count_for_nothing() -> None:
    text = '[{,"\\' * 20_000
    assert read_object(json.dumps({"a": text}).encode()) == {"a": text}


def test_pairs_of_surrogates_are_one_character() -> None:
    assert read_object(b'{"a":"\\ud83d\\ude00"}') == {"a": "\U0001f600"}
    assert read_object(b'{"a":"\\\\ud800"}') == {"a": "\\ud800"}


def test_depth_is_bounded() -> None:
    def nested(levels: int) -> bytes:
        return b'{"a":' * levels + b"1" + b"}" * levels

    assert read_object(nested(32))
    for levels in (33, 500, 5_000):
        with pytest.raises(BadRequest) as caught:
            read_object(nested(levels))
        assert caught.value.code == "request.too_deep"


MIB = 1 << 20


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":[' + b"0," * (MIB // 2 - 10) + b"0]}",
        b'{"a":[' + b"{}," * (MIB // 3 - 10) + b"{}]}",
        b'{"a":[' + b"1.5," * 150_000 + b"x]}",
        b'{"a":"' + b'\\"' * (MIB // 2 - 10),
        b'{"a":"' + b"\\" * (MIB - 21) + b'"}',
        b'{"a":' + b"9" * (MIB - 20) + b"}",
        b'{"a":' + b"[" * (MIB - 20),
        b'{"a":' + b"]" * (MIB - 20),
        b'{"a":"' + b"\\ud800" * (MIB // 6 - 10) + b'"}',
        b"{" + b",".join(b'"%d":1' % n for n in range(80_000)),
        b'"' * (MIB - 1) + b"{",
        b" " * (MIB + 1),
        b"-" * MIB,
    ],
)
def test_a_megabyte_of_anything_costs_less_than_a_blink(data: bytes) -> None:
    began = time.process_time()
    with pytest.raises(BadRequest):
        read_object(data)
    assert time.process_time() - began < 0.2
