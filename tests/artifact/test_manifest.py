"""A manifest is read strictly: nothing missing, nothing extra, nothing of another type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact import Manifest
from foreword.artifact.canonical import encode
from foreword.artifact.manifest import check_name, check_version
from foreword.errors import ArtifactError
from tests.artifact.samples import sample

GOOD: dict[str, Any] = json.loads(sample().manifest_bytes)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field in the manifest except inside the free-form training record."""
    if path and path[0] == "training":
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from places(inner, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from places(value[0], (*path, 0))


def changed(path: tuple[Any, ...], change: str) -> bytes:
    copy = json.loads(json.dumps(GOOD))
    target = copy
    for step in path[:-1]:
        target = target[step]
    if change == "missing":
        del target[path[-1]]
    elif change == "extra":
        target["zzz"] = 1
    else:
        target[path[-1]] = {"weird": True} if not isinstance(target[path[-1]], dict) else 3.5
    return encode(copy)


def one_layer(**change: Any) -> dict[str, Any]:
    return {"decoder": [{"layer": 0, "kv_heads": 2, "key_dim": 4, "value_dim": 4, **change}]}


def probe(**change: Any) -> dict[str, Any]:
    return {**GOOD["probes"][0], **change}


FIELDS = list(places(GOOD))


def test_a_manifest_survives_a_round_trip() -> None:
    manifest = sample().manifest
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert manifest.to_bytes() == sample().manifest_bytes


@pytest.mark.parametrize("path", FIELDS, ids=lambda p: ".".join(map(str, p)))
@pytest.mark.parametrize("change", ["missing", "extra", "type"])
def test_every_field_is_needed_and_typed(path: tuple[Any, ...], change: str) -> None:
    if change == "missing" and path[:1] == ("geometry",) and len(path) == 2:
        pytest.skip("a prefix need not have every site")
    if path == ("training",) and change == "extra":
        pytest.skip("beside, not inside: covered by the top level")
    with pytest.raises(ArtifactError) as caught:
        Manifest.from_bytes(changed(path, change))
    assert caught.value.code.startswith(("manifest.", "digest."))


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("schema", "foreword.prefix/2", "manifest.schema"),
        ("name", "../etc", "manifest.name"),
        ("name", "A", "manifest.name"),
        ("name", "a/b/c", "manifest.name"),
        ("name", "a\n", "manifest.name"),
        ("version", "1.0", "manifest.version"),
        ("version", "01.0.0", "manifest.version"),
        ("created", "yesterday", "manifest.created"),
        ("dtype", "float64", "manifest.value"),
        ("length", 0, "manifest.range"),
        ("length", 10**9, "manifest.range"),
        ("length", True, "manifest.type"),
        ("length", 65_536, "manifest.tensor_size"),
        ("position_convention", "real-first", "manifest.value"),
        ("geometry", {}, "manifest.empty"),
        ("geometry", {"decoder": [], **GOOD["geometry"]} | {"encoder": []}, "manifest.empty"),
        ("geometry", {"decoder": []}, "manifest.empty"),
        ("name", "a/", "manifest.name"),
        ("name", ".hidden", "manifest.name"),
        ("name", "a" * 64, "manifest.name"),
        ("name", "a/../b", "manifest.name"),
        ("version", "1.0.0\n", "manifest.version"),
        ("version", "1\u0663.0.0", "manifest.version"),
        ("version", "1.0.0-01", "manifest.version"),
        ("version", "1.0.0-a..b", "manifest.version"),
        ("version", "1.0.0+", "manifest.version"),
        ("version", "1.0.0-" + "a" * 65, "manifest.version"),
        ("version", "1.0.0-" + "a-" * 100_000, "manifest.version"),
        ("created", "2026-1-1T1:1:1Z", "manifest.created"),
        ("created", "2026-02-30T00:00:00Z", "manifest.created"),
        ("created", "\u0662026-01-31T12:00:00Z", "manifest.created"),
        ("created", "2026-01-31T12:00:00+00:00", "manifest.created"),
        ("tensors", {**GOOD["tensors"], "size": 4 << 30}, "manifest.tensor_size"),
        ("tensors", {**GOOD["tensors"], "size": 2**53}, "manifest.range"),
        ("tensors", {**GOOD["tensors"], "sha256": "sha256:" + "A" * 64}, "digest.malformed"),
        ("tensors", {**GOOD["tensors"], "sha256": "0" * 64}, "digest.malformed"),
        ("geometry", one_layer(kv_heads=1025), "manifest.range"),
        ("geometry", one_layer(key_dim=0), "manifest.range"),
        ("geometry", one_layer(value_dim=2**53), "manifest.range"),
        ("geometry", one_layer(layer=-1), "manifest.range"),
        ("geometry", one_layer(layer=False), "manifest.type"),
        ("geometry", one_layer(kv_heads=1.0), "manifest.type"),
        ("geometry", {"decoder": [{}] * 1025}, "manifest.range"),
        ("probes", [probe(input_ids=[])], "manifest.probe"),
        ("probes", [probe(logit_ids=[1])], "manifest.probe"),
        ("probes", [probe(logit_ids=[], logits=[])], "manifest.probe"),
        ("probes", [probe(input_ids=[-1])], "manifest.type"),
        ("probes", [probe(input_ids=[True])], "manifest.type"),
        ("probes", [probe(logits=["0.5", "1"])], "manifest.type"),
        ("probes", [probe(input_ids=[1] * 4097)], "manifest.range"),
        ("probes", [{}] * 17, "manifest.range"),
    ],
)
def test_values_out_of_bounds_are_refused(field: str, value: Any, code: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        Manifest.from_bytes(encode({**GOOD, field: value}))
    assert caught.value.code == code
    assert len(str(caught.value)) < 500, "what is refused is not repeated at length"


def test_a_geometry_too_large_to_keep_is_refused() -> None:
    largest = {"kv_heads": 1024, "key_dim": 4096, "value_dim": 4096}
    layers = [{"layer": i, **largest} for i in range(512)]
    with pytest.raises(ArtifactError) as caught:
        Manifest.from_bytes(encode({**GOOD, "geometry": {"decoder": layers}, "length": 65_536}))
    assert caught.value.code == "manifest.too_large"


def test_more_tensors_than_a_reader_can_go_through_at_once_are_refused() -> None:
    layers = [{"layer": i, "kv_heads": 1, "key_dim": 1, "value_dim": 1} for i in range(512)]
    allowed = {**GOOD, "geometry": {"decoder": layers}, "length": 1}
    allowed["tensors"] = {**GOOD["tensors"], "size": 10_000}
    assert len(Manifest.from_bytes(encode(allowed)).geometry.sites["decoder"]) == 512
    with pytest.raises(ArtifactError) as caught:
        Manifest.from_bytes(
            encode({**allowed, "geometry": {"decoder": layers, "cross": layers[:1]}})
        )
    assert caught.value.code == "manifest.range"


def test_a_field_name_cannot_steer_a_terminal() -> None:
    with pytest.raises(ArtifactError) as caught:
        Manifest.from_bytes(encode({**GOOD, "\x1b[31m": 1}))
    assert caught.value.code == "manifest.unknown_field"
    assert str(caught.value).isprintable()


def test_layers_must_rise_and_be_named_once() -> None:
    copy = json.loads(json.dumps(GOOD))
    copy["geometry"]["decoder"].reverse()
    with pytest.raises(ArtifactError):
        Manifest.from_bytes(encode(copy))
    copy["geometry"]["decoder"] = [copy["geometry"]["decoder"][1]] * 2
    with pytest.raises(ArtifactError):
        Manifest.from_bytes(encode(copy))


@given(st.text(max_size=8))
def test_a_name_is_never_a_path(name: str) -> None:
    try:
        check_name(name)
    except ArtifactError:
        return
    assert ".." not in name.split("/")
    assert not name.startswith(("/", "."))
    assert name == name.strip()


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_plain_versions_are_accepted(a: int, b: int, c: int) -> None:
    check_version(f"{a}.{b}.{c}")
    check_version(f"{a}.{b}.{c}-rc.1+build.5")


part = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@given(part, part)
def test_names_of_the_documented_form_are_accepted(tenant: str, prefix: str) -> None:
    check_name(prefix)
    check_name(f"{tenant}/{prefix}")
    for wrong in (f"{tenant}/{prefix}/x", f"{prefix}/", f"/{prefix}", f"{prefix} ", f"A{prefix}"):
        with pytest.raises(ArtifactError) as caught:
            check_name(wrong)
        assert caught.value.code == "manifest.name"


@pytest.mark.parametrize(
    "version",
    ["0.0.0", "1.0.0-0", "1.0.0-alpha.1", "1.0.0--", "1.0.0-0a.b-1+001", "1.0.0+21AF26D3---117B"],
)
def test_semantic_versions_of_every_form_are_accepted(version: str) -> None:
    check_version(version)


@given(st.text("0123456789abAB.-+\u0663", max_size=12))
def test_an_accepted_version_is_semantic(text: str) -> None:
    try:
        check_version(text)
    except ArtifactError:
        return
    assert text.isascii()
    release = text.partition("+")[0]
    numbers, _, pre = release.partition("-")
    fields = [*numbers.split("."), *(pre.split(".") if pre else [])]
    assert len(numbers.split(".")) == 3
    assert all(f and (f == "0" or not (f.isdigit() and f[0] == "0")) for f in fields)
