"""The abuse corpus: 64 named files, each with the one code a reader must refuse it with, for ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from foreword.artifact import Digest, Geometry, LayerGeometry, Site, canonical
from foreword.artifact.package import from_bytes
from foreword.artifact.tensors import expected_tensors, parse
from tests.artifact.samples import SPECS, sample

GOOD = sample()
MANIFEST: dict[str, Any] = json.loads(GOOD.manifest_bytes)
_END = 8 + int.from_bytes(GOOD.tensor_bytes[:8], "little")
HEADER: dict[str, Any] = json.loads(GOOD.tensor_bytes[8:_END])
BODY = GOOD.tensor_bytes[_END:]
FIRST, SECOND = SPECS[0].name, SPECS[1].name


@dataclass(frozen=True)
class Abuse:
    """Bytes, ready to be read."""

    read: Callable[..., Any]
    parts: tuple[Any, ...]


Builder = Callable[[], Abuse]


def _text(data: bytes) -> Abuse:
    """These bytes as the manifest."""
    return Abuse(from_bytes, (data, GOOD.tensor_bytes))


def _with(**fields: Any) -> Abuse:
    """The good manifest with other fields; None removes one."""
    changed = {k: v for k, v in {**MANIFEST, **fields}.items() if v is not ...}
    return _text(canonical.encode(changed))


def _spelled(old: str, new: str) -> Abuse:
    """The good manifest with one piece of its text replaced."""
    text = GOOD.manifest_bytes.decode()
    if text.count(old) != 1:
        raise ValueError(f"{old!r} is not there once")
    return _text(text.replace(old, new).encode())


def sealed(tensors: bytes, **fields: Any) -> Abuse:
    """A tensor file the manifest vouches for, so that it is read."""
    file = {"sha256": str(Digest.of(tensors)), "size": len(tensors)}
    return Abuse(from_bytes, (canonical.encode({**MANIFEST, "tensors": file, **fields}), tensors))


def _plain(value: Any) -> bytes:
    """JSON without spaces, in the order of the value."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _file(header: Any, body: bytes = BODY, length: int | None = None) -> Abuse:
    text = header if isinstance(header, bytes) else _plain(header)
    size = len(text) if length is None else length
    return sealed(size.to_bytes(8, "little") + text + body)


def _entry(**changes: Any) -> Abuse:
    """The first tensor's entry with other fields."""
    return _file({**HEADER, FIRST: {**HEADER[FIRST], **changes}})


def _flood() -> Abuse:
    """Sixty megabytes that declare a million empty tensors; no manifest can vouch for so much."""
    entry = b':{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = b"{" + b",".join(b'"t%d"' % i + entry for i in range(1_000_000)) + b"}"
    return Abuse(parse, (len(text).to_bytes(8, "little") + text, SPECS))


def _deep_header() -> Abuse:
    """As long a header as a prefix with many layers may have, and nothing but brackets in it."""
    layers = dict.fromkeys(range(200), LayerGeometry(1, 1, 1))
    specs = expected_tensors(Geometry({Site.DECODER: layers}), 1, "float16")
    return Abuse(parse, ((20_000).to_bytes(8, "little") + b"[" * 20_000, specs))


def _not_finite(dtype: str, bits: int) -> Abuse:
    geometry = Geometry({Site.DECODER: {0: LayerGeometry(1, 2, 2)}})
    width = 4 if dtype == "float32" else 2
    zeros = {s.name: bytes(s.nbytes) for s in expected_tensors(geometry, 2, dtype)}
    good = sample(geometry=geometry, dtype=dtype, length=2, tensors=zeros)
    tensors = good.tensor_bytes[:-width] + bits.to_bytes(width, "little")
    fields = json.loads(good.manifest_bytes)
    del fields["tensors"]
    return sealed(tensors, **fields)


def _of_another(**made_with: Any) -> Abuse:
    """A sound tensor file of a prefix with another shape, under the good manifest."""
    geometry = made_with.get("geometry", GOOD.manifest.geometry)
    length, dtype = made_with.get("length", GOOD.manifest.length), made_with.get("dtype", "float32")
    zeros = {s.name: bytes(s.nbytes) for s in expected_tensors(geometry, length, dtype)}
    return sealed(sample(**made_with, tensors=zeros).tensor_bytes)


def _moved(name: str, by: int) -> dict[str, Any]:
    offsets = [offset + by for offset in HEADER[name]["data_offsets"]]
    return {**HEADER, name: {**HEADER[name], "data_offsets": offsets}}


def _layers(count: int, **shape: int) -> dict[str, Any]:
    shape = {"kv_heads": 1, "key_dim": 1, "value_dim": 1, **shape}
    return {"decoder": [{"layer": i, **shape} for i in range(count)]}


_LAST = max(HEADER, key=lambda name: HEADER[name]["data_offsets"])
_SPREAD = Geometry({Site.DECODER: {0: LayerGeometry(4, 4, 4), 1: LayerGeometry(2, 4, 4)},
                    Site.CROSS: {1: LayerGeometry(1, 4, 2)}})  # fmt: skip
_LATER = Geometry({Site.DECODER: {0: LayerGeometry(2, 4, 4), 2: LayerGeometry(2, 4, 4)},
                   Site.CROSS: {1: LayerGeometry(1, 4, 2)}})  # fmt: skip
_RTL = "\u202etxt.exe"

CORPUS: dict[str, tuple[Builder, str]] = {
    # The manifest as text
    "nothing at all": (lambda: _text(b""), "json.syntax"),
    "a byte order mark": (lambda: _text(b"\xef\xbb\xbf" + GOOD.manifest_bytes), "json.syntax"),
    "UTF-16": (lambda: _text(GOOD.manifest_bytes.decode().encode("utf-16")), "json.syntax"),
    "not UTF-8": (lambda: _text(b'{"name":"\xff"}'), "json.syntax"),
    "a NUL at the end": (lambda: _text(GOOD.manifest_bytes + b"\0"), "json.syntax"),
    "a line break at the end": (lambda: _text(GOOD.manifest_bytes + b"\n"), "json.not_canonical"),
    "a key twice": (lambda: _spelled('"length":3', '"length":3,"length":4'), "json.syntax"),
    "keys in another order": (
        lambda: _text(_plain(dict(reversed(MANIFEST.items())))), "json.not_canonical"),
    "a letter as an escape": (lambda: _spelled("acme/support", "acm\\u0065/support"), "json.not_canonical"),
    "a lone surrogate": (lambda: _spelled("some/base", "\\ud800"), "json.value"),
    "NaN as a logit": (lambda: _spelled("0.25", "NaN"), "json.syntax"),
    "a number beyond all doubles": (lambda: _spelled("0.25", "1e999"), "json.syntax"),
    "an integer of 5,000 digits": (lambda: _spelled('"length":3', f'"length":{"9" * 5000}'), "json.syntax"),
    "17 levels": (lambda: _spelled('"seed":7', '"seed":' + "[" * 17 + "]" * 17), "json.value"),
    "20,000 levels": (lambda: _text(b"[" * 20_000), "json.syntax"),
    "a megabyte of brackets": (lambda: _text(b"[" * (1 << 20)), "json.too_large"),
    "a megabyte of noughts": (lambda: _text(b"[" + b"0," * 524_000 + b"0]"), "json.too_large"),
    "a megabyte of empty objects": (lambda: _text(b"[" + b"{}," * 349_000 + b"0]"), "json.too_large"),
    "over a megabyte of text": (lambda: _text(b'"' + b"a" * (1 << 20) + b'"'), "json.too_large"),
    # The manifest's fields
    "a list at the top": (lambda: _text(b"[]"), "manifest.type"),
    "a field nobody knows": (lambda: _with(trust="me"), "manifest.unknown_field"),
    "a field left out": (lambda: _with(position_convention=...), "manifest.missing_field"),
    "a format of the future": (lambda: _with(schema="foreword.prefix/2"), "manifest.schema"),
    "a name with dots and a slash": (lambda: _with(name="../../etc/passwd"), "manifest.name"),
    "a name with a NUL": (lambda: _with(name="acme/support\0.txt"), "manifest.name"),
    "a name from right to left": (lambda: _with(name=f"acme/{_RTL}"), "manifest.name"),
    "a name of 100,000 letters": (lambda: _with(name="a" * 100_000), "manifest.name"),
    "a version that keeps a regular expression busy": (
        lambda: _with(version="1.0.0-" + "0-" * 50_000 + "!"), "manifest.version"),
    "a version in other digits": (lambda: _with(version="\u0661.0.0"), "manifest.version"),
    "the 30th of February": (lambda: _with(created="2026-02-30T12:00:00Z"), "manifest.created"),
    "a digest in capitals": (
        lambda: _with(base={**MANIFEST["base"], "fingerprint": "sha256:" + "A" * 64}), "digest.malformed"),
    "true as a length": (lambda: _with(length=True), "manifest.type"),
    "no virtual token": (lambda: _with(length=0), "manifest.range"),
    "another position convention": (lambda: _with(position_convention="real-first"), "manifest.value"),
    "terabytes of numbers": (
        lambda: _with(length=65_536, geometry=_layers(64, kv_heads=1024)), "manifest.too_large"),
    "a size the numbers do not fit in": (
        lambda: _with(tensors={**MANIFEST["tensors"], "size": 100}), "manifest.tensor_size"),
    "one layer too many": (lambda: _with(geometry=_layers(513)), "manifest.range"),
    "layers that fall": (lambda: _with(geometry={"decoder": _layers(2)["decoder"][::-1]}), "manifest.range"),
    "no layer": (lambda: _with(geometry={}), "manifest.empty"),
    "a probe without logits": (
        lambda: _with(probes=[{"input_ids": [1], "logit_ids": [], "logits": []}]), "manifest.probe"),
    # Both files
    "other numbers": (lambda: Abuse(from_bytes, (GOOD.manifest_bytes, GOOD.tensor_bytes[:-1] + b"\x07")),
                      "artifact.digest"),
    "a byte too few": (lambda: Abuse(from_bytes, (GOOD.manifest_bytes, GOOD.tensor_bytes[:-1])),
                       "artifact.truncated"),
    # The tensor file's header
    "a header of 2^63 bytes": (lambda: _file(HEADER, length=2**63), "tensor.header_size"),
    "a header longer than the file": (lambda: _file(b"{}", length=1000), "tensor.truncated"),
    "a million empty tensors": (_flood, "tensor.header_size"),
    "20,000 levels in a header": (_deep_header, "tensor.header"),
    "a rank of 10,000": (lambda: _entry(shape=[1] * 10_000), "tensor.header_size"),
    "a dimension of 2^62": (lambda: _entry(shape=[0, 2**62]), "tensor.shape"),
    "a name twice": (
        lambda: _file(_plain(HEADER)[:-1] + b"," + _plain({FIRST: HEADER[FIRST]})[1:]), "tensor.header"),
    "a name from right to left, beside the good ones": (lambda: _file({**HEADER, _RTL: HEADER[FIRST]}),
                                                        "tensor.extra"),
    "a field nobody knows in an entry": (lambda: _entry(device="cuda"), "tensor.header"),
    "an overlap": (lambda: _file(_moved(SECOND, -4)), "tensor.layout"),
    "a hole": (lambda: _file(_moved(_LAST, 4), BODY + b"\0" * 4), "tensor.layout"),
    "bytes behind the last tensor": (lambda: _file(HEADER, BODY + b"\0"), "tensor.trailing"),
    # The tensor file's numbers
    "another type": (lambda: _of_another(dtype="bfloat16", length=6), "tensor.dtype"),
    "other heads": (lambda: _of_another(geometry=_SPREAD), "tensor.shape"),
    "other layers": (lambda: _of_another(geometry=_LATER), "tensor.extra"),
    "another length": (lambda: _of_another(length=4), "tensor.shape"),
    "NaN in float32": (lambda: _not_finite("float32", 0x7FC00000), "tensor.not_finite"),
    "infinity in float32": (lambda: _not_finite("float32", 0xFF800000), "tensor.not_finite"),
    "NaN in bfloat16": (lambda: _not_finite("bfloat16", 0x7FC0), "tensor.not_finite"),
    "infinity in bfloat16": (lambda: _not_finite("bfloat16", 0xFF80), "tensor.not_finite"),
    "NaN in float16": (lambda: _not_finite("float16", 0x7E01), "tensor.not_finite"),
    "infinity in float16": (lambda: _not_finite("float16", 0x7C00), "tensor.not_finite"),
}  # fmt: skip
