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
        (b"0.10", "json.not_canonical"),
        (b"-0", "json.not_canonical"),
        (b"1E2", "json.not_canonical"),
        (b"0." + b"1" * 5000, "json.syntax"),
        (b"-9007199254740993", "json.syntax"),
        (b'{"a": 1}', "json.not_canonical"),
        (b'{"\\ud800":1}', "json.value"),
        (b"[" * 18 + b"]" * 18, "json.value"),
        (b"01", "json.syntax"),
        (b"[" * 40 + b"]" * 40, "json.value"),
        (b"[" * 20_000, "json.syntax"),
        (b"[" * 200_000, "json.too_large"),
        (b"[" + b"0," * 32_768 + b"0]", "json.too_large"),
        (b"[" + b"[]," * 16_384 + b"[]]", "json.too_large"),
        (b'"' + b"{" * 32_769 + b'"', "json.too_large"),
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


@pytest.mark.parametrize(
    "value",
    [
        float("nan"), float("-inf"), 2**53 + 1, 10**5000, "\ud800", {"\udfff": 1}, {1: 2}, {"a": b"x"},
        {"a": {1, 2}},
    ],
    ids=lambda value: ascii(value)[:40] if not isinstance(value, int) else "large",
)  # fmt: skip
def test_what_json_cannot_hold_is_not_written(value: object) -> None:
    with pytest.raises(ArtifactError) as caught:
        encode(value)
    assert caught.value.code == "json.value"


def test_the_limits_themselves_are_allowed() -> None:
    deep: object = 1
    for _ in range(16):
        deep = [deep]
    for value in (deep, 2**53, -(2**53), -0.0, 5e-324, [0] * 32_768, "," * 32_768):
        assert encode(decode(encode(value))) == encode(value)
    with pytest.raises(ArtifactError):
        encode([deep])


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ArtifactError):
        encode(loop)


def test_keys_are_sorted_by_code_point_not_by_utf16() -> None:
    # U+FF5E sorts before U+1F600, whose UTF-16 form begins with a smaller unit.
    assert (
        encode({"\U0001f600": 1, "\uff5e": 2, "a": 3})
        == '{"a":3,"\uff5e":2,"\U0001f600":1}'.encode()
    )
