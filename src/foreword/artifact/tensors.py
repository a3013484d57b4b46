"""The tensor file: safetensors, read by a parser that knows exactly what must be in it.

The safetensors format is safe but not bounded: a small header can declare hundreds of thousands of
empty tensors, twice the same name, or values that are not finite. So the set of tensors, their types,
shapes and places are computed from the manifest, and anything else is refused before one is built.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

from foreword.artifact.canonical import encode
from foreword.artifact.geometry import Geometry
from foreword.artifact.manifest import ITEM_SIZE, MAX_TENSOR_HEADER
from foreword.errors import ArtifactError

_HEADER_BYTES_PER_TENSOR = 160
"""More than the longest entry: a name, a type, three dimensions, two offsets and some spaces."""
_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_EXPONENT = {
    "float32": ("<u4", 0x7F800000),
    "bfloat16": ("<u2", 0x7F80),
    "float16": ("<u2", 0x7C00),
}


@dataclass(frozen=True)
class TensorSpec:
    """One tensor that must be there."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """`[kv_head, token, head_dim]` in an artifact."""

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * ITEM_SIZE[self.dtype]


def expected_tensors(geometry: Geometry, length: int, dtype: str) -> tuple[TensorSpec, ...]:
    """The only acceptable tensors, in the order they are written: by name."""
    specs = [
        TensorSpec(f"{site}.{index}.{part}", dtype, (layer.kv_heads, length, dim))
        for site, layers in geometry.sites.items()
        for index, layer in layers.items()
        for part, dim in (("key", layer.key_dim), ("value", layer.value_dim))
    ]
    return tuple(sorted(specs, key=lambda spec: spec.name))


def serialize(tensors: Mapping[str, bytes], specs: Sequence[TensorSpec]) -> bytes:
    """A safetensors file with exactly these tensors, one after another in the order of `specs`.

    Raises:
        ArtifactError: a tensor is missing, left over, of another size, or not finite.
    """
    _same_names(set(tensors), specs)
    header: dict[str, Any] = {}
    offset = 0
    for spec in specs:
        data = tensors[spec.name]
        if len(data) != spec.nbytes:
            _refuse("shape", f"{spec.name} needs {spec.nbytes} bytes, got {len(data)}")
        _check_finite(memoryview(data), spec)
        header[spec.name] = {
            "dtype": _TYPES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
    text = encode(header)
    text += b" " * (-len(text) % 8)  # safetensors aligns the data to eight bytes
    return b"".join([len(text).to_bytes(8, "little"), text, *(tensors[s.name] for s in specs)])


def serialize_matrix(name: str, data: bytes, dtype: str, shape: tuple[int, ...]) -> bytes:
    """A safetensors file with one tensor, as other libraries exchange it."""
    return serialize({name: data}, [TensorSpec(name, dtype, shape)])


def parse(
    buffer: bytes, specs: Sequence[TensorSpec], *, metadata: bool = False
) -> Mapping[str, memoryview]:
    """Views of each tensor's bytes in `buffer`.

    Any order of tensors is accepted, gaps and overlaps are not. `metadata` allows (and ignores) the
    text that other libraries add to a header; our own files have none.

    Raises:
        ArtifactError: the file is not exactly these tensors, all of them finite. Codes begin with
            `tensor.`; nothing is built before every check has passed.
    """
    start = _header_end(buffer, len(specs))
    entries = _header(buffer[8:start])
    if metadata:
        entries.pop("__metadata__", None)
    _same_names(set(entries), specs)
    places = {spec.name: _place(entries[spec.name], spec) for spec in specs}
    _check_layout(places, len(buffer) - start)
    view = memoryview(buffer).toreadonly()[start:]
    tensors = {name: view[begin:end] for name, (begin, end) in places.items()}
    for spec in specs:
        _check_finite(tensors[spec.name], spec)
    return tensors


def _header_end(buffer: bytes, count: int) -> int:
    if len(buffer) < 8:
        _refuse("truncated", f"expected a header length of 8 bytes, the file has {len(buffer)}")
    size = int.from_bytes(buffer[:8], "little")
    # Bounded by what this many tensors can need, before any JSON is read.
    limit = min(MAX_TENSOR_HEADER, 64 + count * _HEADER_BYTES_PER_TENSOR)
    if size > limit:
        _refuse(
            "header_size", f"the header claims {size} bytes, {count} tensors need at most {limit}"
        )
    if 8 + size > len(buffer):
        _refuse("truncated", f"the header claims {size} bytes, {len(buffer) - 8} are there")
    return 8 + size


def _header(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_int=_integer)
    except (ValueError, RecursionError) as e:
        raise ArtifactError(
            f"the tensor file's header is not valid JSON ({str(e)[:120]})", code="tensor.header"
        ) from e
    if not isinstance(value, dict):
        _refuse("header", "the header is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("the same name twice")
    return result


def _integer(text: str) -> int:
    if text == "-0":  # other parsers read it as a float and refuse the file
        raise ValueError("-0 is not an offset or a dimension")
    return int(text)


def _same_names(names: set[str], specs: Sequence[TensorSpec]) -> None:
    wanted = {spec.name for spec in specs}
    if extra := sorted(names - wanted):
        _refuse(
            "extra",
            f"{len(extra)} tensors that the manifest does not name, first {extra[0][:80]!r}",
        )
    if missing := sorted(wanted - names):
        _refuse("missing", f"{len(missing)} tensors are missing, first {missing[0]!r}")


def _place(entry: Any, spec: TensorSpec) -> tuple[int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _refuse("header", f"{spec.name}: expected dtype, shape and data_offsets and nothing else")
    if entry["dtype"] != _TYPES[spec.dtype]:
        _refuse(
            "dtype", f"{spec.name}: expected {_TYPES[spec.dtype]}, got {str(entry['dtype'])[:40]!r}"
        )
    if not _is_integers(entry["shape"]) or tuple(entry["shape"]) != spec.shape:
        _refuse(
            "shape", f"{spec.name}: expected {list(spec.shape)}, got {str(entry['shape'])[:80]!r}"
        )
    offsets = entry["data_offsets"]
    if not _is_integers(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != spec.nbytes:
        _refuse(
            "offsets",
            f"{spec.name}: expected {spec.nbytes} bytes, got offsets {str(offsets)[:80]!r}",
        )
    return offsets[0], offsets[1]


def _is_integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int for v in value)


def _check_layout(places: Mapping[str, tuple[int, int]], available: int) -> None:
    """The tensors must tile the data exactly: no hole, no overlap, nothing behind the last one."""
    end = 0
    for name, (begin, stop) in sorted(places.items(), key=lambda item: item[1]):
        if begin != end:
            what = "overlaps the tensor before it" if begin < end else "leaves a hole before it"
            _refuse("layout", f"{name} {what} (expected offset {end}, got {begin})")
        end = stop
    if end > available:
        _refuse("truncated", f"the tensors need {end} bytes, {available} are there")
    if end < available:
        _refuse("trailing", f"{available - end} bytes follow the last tensor")


def _check_finite(data: memoryview, spec: TensorSpec) -> None:
    import numpy as np  # inside: reading a manifest should not pay for it

    kind, exponent = _EXPONENT[spec.dtype]
    bits = np.frombuffer(data, dtype=kind)
    # All exponent bits set means NaN or infinity, in every IEEE format and in bfloat16.
    if bool(np.any((bits & exponent) == exponent)):
        _refuse("not_finite", f"{spec.name} has a value that is NaN or infinite")


def _refuse(code: str, reason: str) -> NoReturn:
    raise ArtifactError(
        f"{reason}; the tensor file was damaged or made for another manifest", code=f"tensor.{code}"
    )
