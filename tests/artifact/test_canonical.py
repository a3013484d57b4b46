"""One value, one encoding: whatever else a parser would forgive is refused."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact.canonical import decode, encode
from foreword.errors import ArtifactError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalar = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
value = st.recursive(
    scalar, lambda v: st.lists(v, max_size=4) | st.dictionaries(text, v, max_size=4), max_leaves=20
)


@given(value)
def test_what_is_written_is_read_back_and_has_one_form(v: object) -> None:
    data = encode(v)
    assert decode(data) == v
    assert encode(decode(data)) == data
    assert json.loads(data) == v


@given(value)
def test_any_other_spacing_is_refused(v: object) -> None:
    loose = json.dumps(v, sort_keys=True, ensure_ascii=False).encode()
    if loose != encode(v):
        with pytest.raises(ArtifactError):
            decode(loose)
    for changed in (b" " + encode(v), encode(v) + b"\n"):
        with pytest.raises(ArtifactError):
            decode(changed)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b'{"a":1,"a":2}', "json.syntax"),
        (b'{"b":1,"a":2}', "json.not_canonical"),
        (b"NaN", "json.syntax"),
        (b"[Infinity]", "json.syntax"),
        (b"\xef\xbb\xbf{}", "json.syntax"),
        (b'"\xff"', "json.syntax"),
        (b'"\\ud800"', "json.value"),
        (b'"\\u0041"', "json.not_canonical"),
        (b"9007199254740993", "json.syntax"),
        (b"1" * 5000, "json.syntax"),
        (b"1e999", "json.syntax"),
        (b"1.0e0", "json.not_canonical"),
        (b"01", "json.syntax"),
        (b"[" * 40 + b"]" * 40, "json.value"),
        (b"[" * 200_000, "json.syntax"),
        (b"", "json.syntax"),
        (b"{}x", "json.syntax"),
        (b"0" * (1 << 21), "json.too_large"),
    ],
)
def test_hostile_text_is_refused_quickly(data: bytes, code: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ArtifactError) as caught:
        decode(data)
    assert caught.value.code == code
    assert time.perf_counter() - began < 0.1
