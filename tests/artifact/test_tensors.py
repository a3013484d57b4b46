"""The pre-parser: exactly the tensors the manifest calls for, or a typed error at once."""

from __future__ import annotations

import json
import random
import struct
import time
from typing import Any

import pytest
import safetensors.numpy

from foreword.artifact.geometry import Geometry, LayerGeometry, Site
from foreword.artifact.tensors import TensorSpec, expected_tensors, parse, serialize
from foreword.errors import ArtifactError
from tests.artifact.samples import SPECS, tensors

GOOD = serialize(tensors(), SPECS)
HEADER: dict[str, Any] = json.loads(GOOD[8 : 8 + int.from_bytes(GOOD[:8], "little")])
BODY = GOOD[8 + int.from_bytes(GOOD[:8], "little") :]
FIRST = SPECS[0].name


def built(header: Any, body: bytes = BODY) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def edited(**entry: Any) -> dict[str, Any]:
    return {**HEADER, FIRST: {**HEADER[FIRST], **entry}}


def code_of(data: bytes, specs: tuple[TensorSpec, ...] = SPECS) -> str:
    with pytest.raises(ArtifactError) as caught:
        parse(data, specs)
    return caught.value.code


def test_what_is_written_is_what_safetensors_reads() -> None:
    loaded = safetensors.numpy.load(GOOD)
    ours = parse(GOOD, SPECS)
    assert {n: a.tobytes() for n, a in loaded.items()} == {n: bytes(v) for n, v in ours.items()}
    assert {n: a.shape for n, a in loaded.items()} == {s.name: s.shape for s in SPECS}


LAST = max(HEADER, key=lambda name: HEADER[name]["data_offsets"])
LAST_SIZE = HEADER[LAST]["data_offsets"][1] - HEADER[LAST]["data_offsets"][0]
START, END = HEADER[FIRST]["data_offsets"]
CASES: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "tensor.truncated"),
    "header longer than the file": (struct.pack("<Q", 500) + b"{}", "tensor.truncated"),
    "header of 2^62 bytes": (struct.pack("<Q", 2**62) + b"{}", "tensor.header_size"),
    "header not JSON": (built(b"{]"), "tensor.header"),
    "header a list": (built(b"[]"), "tensor.header"),
    "header with a byte order mark": (built(b"\xef\xbb\xbf{}"), "tensor.header"),
    "deep JSON": (built(b"[" * 600), "tensor.header"),
    "extra tensor": (built({**HEADER, "spare": HEADER[FIRST]}), "tensor.extra"),
    "metadata": (built({**HEADER, "__metadata__": {"a": "b"}}), "tensor.extra"),
    "missing tensor": (built({k: v for k, v in HEADER.items() if k != FIRST}), "tensor.missing"),
    "other type": (built(edited(dtype="F16")), "tensor.dtype"),
    "type of another kind": (built(edited(dtype=["F32"])), "tensor.dtype"),
    "other shape, same size": (built(edited(shape=[3, 2, 4])), "tensor.shape"),
    "dimension of 2^62": (built(edited(shape=[0, 2**62])), "tensor.shape"),
    "rank 10,000 is too long a header": (built(edited(shape=[1] * 10_000)), "tensor.header_size"),
    "truth values as a shape": (built(edited(shape=[True, 3, 4])), "tensor.shape"),
    "negative offsets": (built(edited(data_offsets=[-4, END - 4])), "tensor.layout"),
    "offsets that do not fit": (built(edited(data_offsets=[START, END - 1])), "tensor.offsets"),
    "offsets as truth values": (built(edited(data_offsets=[False, END])), "tensor.offsets"),
    "unknown field": (built(edited(note=1)), "tensor.header"),
    "minus nought, which others read as a float": (
        built(json.dumps(HEADER).replace("[0, ", "[-0, ").encode()),
        "tensor.header",
    ),
    "offsets as floats": (built(edited(data_offsets=[0.0, END])), "tensor.offsets"),
    "one offset": (built(edited(data_offsets=[END])), "tensor.offsets"),
    "offset of 2^64": (built(edited(data_offsets=[2**64, 2**64 + END])), "tensor.layout"),
    "an integer of 300 digits": (built(edited(shape=[10**299])), "tensor.shape"),
    "nested shape": (
        built(b"%s" % json.dumps(edited(shape="@")).replace('"@"', "[" * 80 + "]" * 80).encode()),
        "tensor.shape",
    ),
    "NaN in the header": (built(edited(shape=[float("nan")])), "tensor.shape"),
    "entry not an object": (built({**HEADER, FIRST: None}), "tensor.header"),
    "lone surrogate as a name": (built(b'{"\\ud800": {}}'), "tensor.extra"),
    "header not UTF-8": (built(b'{"\xff": {}}'), "tensor.header"),
    "overlap": (
        built({**HEADER, LAST: {**HEADER[LAST], "data_offsets": [0, LAST_SIZE]}}),
        "tensor.layout",
    ),
    "hole": (
        built(
            {
                **HEADER,
                LAST: {
                    **HEADER[LAST],
                    "data_offsets": [o + 4 for o in HEADER[LAST]["data_offsets"]],
                },
            },
            BODY + b"\0" * 4,
        ),
        "tensor.layout",
    ),
    "trailing bytes": (GOOD + b"\0", "tensor.trailing"),
    "data cut short": (GOOD[:-1], "tensor.truncated"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_file_is_refused_with_its_own_code(case: str) -> None:
    data, code = CASES[case]
    began = time.perf_counter()
    assert code_of(data) == code
    assert time.perf_counter() - began < 0.05


def test_a_name_given_twice_is_refused() -> None:
    entry = json.dumps(HEADER[FIRST])
    twice = json.dumps(HEADER)[:-1] + f', "{FIRST}": {entry}}}'
    assert code_of(built(twice.encode())) == "tensor.header"


def test_a_file_cut_anywhere_is_refused() -> None:
    for cut in range(len(GOOD)):
        assert code_of(GOOD[:cut]) == "tensor.truncated"


def test_a_flood_of_empty_tensors_is_refused_before_it_is_read() -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    flood = built({f"t{i}": empty for i in range(600_000)}, b"")
    began = time.perf_counter()
    assert code_of(flood) == "tensor.header_size"
    assert time.perf_counter() - began < 0.05


@pytest.mark.parametrize("field", ["dtype", "shape", "data_offsets"])
def test_a_message_does_not_steer_the_terminal(field: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        parse(built(edited(**{field: "\x1b[2J\n\u202e"})), SPECS)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        ("float32", 0x7FC00000),
        ("float32", 0xFF800000),
        ("bfloat16", 0x7FC0),
        ("bfloat16", 0xFF80),
        ("float16", 0x7E00),
        ("float16", 0xFC00),
    ],
)
def test_values_that_are_not_finite_are_refused(dtype: str, bits: int) -> None:
    specs = expected_tensors(Geometry({Site.DECODER: {0: LayerGeometry(1, 2, 2)}}), 2, dtype)
    size = 4 if dtype == "float32" else 2
    good = {spec.name: b"\x01" * spec.nbytes for spec in specs}
    data = serialize(good, specs)
    bad = data[: -2 * size] + bits.to_bytes(size, "little") + data[-size:]
    assert code_of(bad, specs) == "tensor.not_finite"
    with pytest.raises(ArtifactError):
        serialize({**good, specs[0].name: bits.to_bytes(size, "little") * 4}, specs)


def test_mutated_files_give_typed_errors_and_nothing_safetensors_would_refuse() -> None:
    rng = random.Random(5)
    accepted = 0
    for _ in range(4000):
        data = bytearray(GOOD)
        for _ in range(rng.choice([1, 1, 2, 8])):
            place = rng.randrange(len(data))
            action = rng.random()
            if action < 0.6:
                data[place] = rng.randrange(256)
            elif action < 0.8:
                del data[place : place + rng.choice([1, 8])]
            else:
                data[place:place] = bytes(rng.randrange(256) for _ in range(rng.choice([1, 8])))
            if not data:
                break
        try:
            ours = parse(bytes(data), SPECS)
        except ArtifactError:
            continue
        accepted += 1
        theirs = safetensors.numpy.load(bytes(data))
        assert {n: a.tobytes() for n, a in theirs.items()} == {n: bytes(v) for n, v in ours.items()}
    assert 0 < accepted < 4000, "some flips only change a number, most break the file"


def test_metadata_of_other_libraries_is_read_over_only_where_allowed() -> None:
    data = built({"__metadata__": {"format": "pt"}, **HEADER})
    assert code_of(data) == "tensor.extra"
    found = parse(data, SPECS, metadata=True)
    assert {n: bytes(v) for n, v in found.items()} == tensors()


def test_views_cannot_change_what_was_checked() -> None:
    view = parse(GOOD, SPECS)[FIRST]
    with pytest.raises(TypeError):
        view[0] = 1


@pytest.mark.parametrize("change", ["missing", "extra", "short"])
def test_only_the_named_tensors_are_written(change: str) -> None:
    given = tensors()
    if change == "missing":
        del given[FIRST]
    elif change == "extra":
        given["spare"] = b""
    else:
        given[FIRST] = given[FIRST][:-4]
    with pytest.raises(ArtifactError) as caught:
        serialize(given, SPECS)
    assert caught.value.code == {"short": "tensor.shape"}.get(change, f"tensor.{change}")
