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
        ("probes", [{}] * 17, "manifest.range"),
    ],
)
def test_values_out_of_bounds_are_refused(field: str, value: Any, code: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        Manifest.from_bytes(encode({**GOOD, field: value}))
    assert caught.value.code == code


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
