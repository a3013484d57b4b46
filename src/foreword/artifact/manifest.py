"""The manifest: all facts that must match before a prefix may be used. Its digest is the name.

The format is written down in docs/artifact-format.md; this file is the only reader and writer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from foreword.artifact import canonical
from foreword.artifact.digest import Digest
from foreword.artifact.fields import Fields, refuse
from foreword.artifact.geometry import Geometry, LayerGeometry, Site

SCHEMA = "foreword.prefix/1"
POSITION_CONVENTION = "virtual-first"
"""Virtual tokens take positions 0..m-1, real tokens start at m; keys are stored after rotary
embedding; the prefix obeys the model's own mask (a sliding window slides past it)."""

Dtype = Literal["float32", "bfloat16", "float16"]
ITEM_SIZE: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}

MAX_LENGTH = 65_536
MAX_LAYERS = 1_024
MAX_TENSORS = 1_024
"""Over all sites: what a reader does with a header grows with their number, not with the bytes."""
MAX_HEADS = 1_024
MAX_DIM = 4_096
MAX_TENSOR_BYTES = 4 << 30
MAX_TENSOR_HEADER = 1 << 20
MAX_PROBES = 16
MAX_PROBE_TOKENS = 4_096

_PART = r"[a-z0-9][a-z0-9._-]{0,62}"
_NAME = re.compile(rf"{_PART}(/{_PART})?")
_NUMBER = r"(0|[1-9][0-9]{0,8})"  # not \d, which takes the digits of every script
_RELEASE = r"(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    rf"(-(?=[0-9A-Za-z.-]{{1,64}}(\+|$)){_RELEASE}(\.{_RELEASE})*)?"
    r"(\+(?=[0-9A-Za-z.-]{1,64}$)[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True, slots=True)
class BaseRef:
    """The frozen model a prefix belongs to."""

    id: str
    """How the user named it; for people, never compared."""
    fingerprint: Digest
    """Over the real weights and configuration."""
    tokenizer: Digest | None
    architecture: str
    """`model_type` of the configuration, such as `llama`."""
    context: int | None
    """Most positions the model knows; None if it has no limit."""


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """How an input is put to the model: a template with `{column}` places, or its chat template."""

    kind: Literal["template", "chat"]
    template: str
    """For `chat`, the chat template's text, for the record."""


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The one tensor file beside the manifest."""

    sha256: Digest
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Probe:
    """An input, and the logits base + prefix gave for it at the last position."""

    input_ids: tuple[int, ...]
    logit_ids: tuple[int, ...]
    logits: tuple[float, ...]


@dataclass(frozen=True)
class Manifest:
    """Everything about one prefix version except its numbers."""

    name: str
    """`prefix` or `tenant/prefix`."""
    version: str
    """Semantic version."""
    created: str
    """UTC, as 2026-01-31T12:00:00Z."""
    base: BaseRef
    geometry: Geometry
    length: int
    """Virtual tokens, m."""
    dtype: Dtype
    prompt: PromptFormat
    tensors: TensorFile
    training: Mapping[str, Any]
    """Training record: data digest, seed, settings, metrics, software versions."""
    probes: tuple[Probe, ...]
    position_convention: str = POSITION_CONVENTION

    def __post_init__(self) -> None:
        check_name(self.name)
        check_version(self.version)
        _check_sizes(self)

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical.encode(_to_json(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read and check a manifest.

        Raises:
            ArtifactError: with a code that says what is wrong (docs/artifact-format.md lists them).
        """
        return _from_json(canonical.decode(data))


def check_name(name: str) -> None:
    """`prefix` or `tenant/prefix`; each part lower-case letters, digits, '.', '_' or '-'."""
    if not _NAME.fullmatch(name):
        refuse(
            "name", "manifest.name",
            "a name is `prefix` or `tenant/prefix`, each part at most 63 lower-case letters, "
            f"digits, '.', '_' or '-', got {name[:80]!r}",
        )  # fmt: skip


def check_version(version: str) -> None:
    """Semantic version 2.0, such as 1.4.0 or 2.0.0-rc.1."""
    if not _VERSION.fullmatch(version):
        refuse(
            "version", "manifest.version",
            f"a version is semantic, such as 1.4.0 or 2.0.0-rc.1, got {version[:80]!r}",
        )  # fmt: skip


def tensor_bytes(geometry: Geometry, length: int, dtype: str) -> int:
    """Bytes of all keys and values: m * sum(kv_heads * (key_dim + value_dim)) * item size."""
    return length * geometry.values_per_token() * ITEM_SIZE[dtype]


def _check_sizes(manifest: Manifest) -> None:
    total = tensor_bytes(manifest.geometry, manifest.length, manifest.dtype)
    if total > MAX_TENSOR_BYTES:
        refuse("length", "manifest.too_large", f"the tensors would take {total} bytes")
    # Both ways: a reader makes room for as many bytes as the manifest says.
    if not total <= manifest.tensors.size <= total + 8 + MAX_TENSOR_HEADER:
        refuse(
            "tensors.size", "manifest.tensor_size",
            f"the geometry needs {total} bytes of numbers, the file has {manifest.tensors.size}",
        )  # fmt: skip


def _to_json(manifest: Manifest) -> dict[str, Any]:
    base = manifest.base
    return {
        "schema": SCHEMA,
        "name": manifest.name,
        "version": manifest.version,
        "created": manifest.created,
        "base": {
            "id": base.id,
            "fingerprint": str(base.fingerprint),
            "tokenizer": str(base.tokenizer) if base.tokenizer else None,
            "architecture": base.architecture,
            "context": base.context,
        },
        "geometry": {
            str(site): [
                {
                    "layer": index,
                    "kv_heads": layer.kv_heads,
                    "key_dim": layer.key_dim,
                    "value_dim": layer.value_dim,
                }
                for index, layer in layers.items()
            ]
            for site, layers in manifest.geometry.sites.items()
        },
        "length": manifest.length,
        "dtype": manifest.dtype,
        "position_convention": manifest.position_convention,
        "prompt": {"kind": manifest.prompt.kind, "template": manifest.prompt.template},
        "tensors": {"sha256": str(manifest.tensors.sha256), "size": manifest.tensors.size},
        "training": manifest.training,
        "probes": [
            {
                "input_ids": list(probe.input_ids),
                "logit_ids": list(probe.logit_ids),
                "logits": list(probe.logits),
            }
            for probe in manifest.probes
        ],
    }


def _from_json(value: Any) -> Manifest:
    fields = Fields(value, "manifest")
    schema = fields.text("schema")
    if schema != SCHEMA:
        refuse("schema", "manifest.schema", f"expected {SCHEMA}, got {schema[:80]!r}; it was written "
               "by another version of Foreword")  # fmt: skip
    convention = fields.choice("position_convention", (POSITION_CONVENTION,))
    manifest = Manifest(
        name=fields.text("name"),
        version=fields.text("version"),
        created=_time(fields.text("created")),
        base=_base(fields.object("base")),
        geometry=_geometry(fields.object("geometry")),
        length=fields.integer("length", 1, MAX_LENGTH),
        dtype=cast(Dtype, fields.choice("dtype", tuple(ITEM_SIZE))),
        prompt=_prompt(fields.object("prompt")),
        tensors=_tensor_file(fields.object("tensors")),
        training=fields.object("training").rest(),
        probes=tuple(_probe(entry) for entry in fields.objects("probes", MAX_PROBES)),
        position_convention=convention,
    )
    fields.done()
    return manifest


def _time(text: str) -> str:
    try:
        if not _TIME.fullmatch(text):  # strptime also takes 2026-1-1 and digits of other scripts
            raise ValueError
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        refuse("created", "manifest.created", f"expected 2026-01-31T12:00:00Z, got {text[:40]!r}")
    return text


def _base(fields: Fields) -> BaseRef:
    base = BaseRef(
        id=fields.text("id"),
        fingerprint=Digest.parse(fields.text("fingerprint")),
        tokenizer=None if fields.is_null("tokenizer") else Digest.parse(fields.text("tokenizer")),
        architecture=fields.text("architecture"),
        context=None if fields.is_null("context") else fields.integer("context", 1, 1 << 40),
    )
    fields.done()
    return base


def _geometry(fields: Fields) -> Geometry:
    sites = {}
    for site in Site:
        if not fields.has(site):
            continue
        layers: dict[int, LayerGeometry] = {}
        last = -1
        for entry in fields.objects(site, MAX_LAYERS):
            index = entry.integer("layer", last + 1, MAX_LAYERS)
            layers[index] = LayerGeometry(
                entry.integer("kv_heads", 1, MAX_HEADS),
                entry.integer("key_dim", 1, MAX_DIM),
                entry.integer("value_dim", 1, MAX_DIM),
            )
            entry.done()
            last = index
        if not layers:  # the same as leaving the site out, which is the one way to say it
            refuse(f"geometry.{site}", "manifest.empty", "expected at least one layer, got none")
        sites[site] = layers
    fields.done()
    if not sites:
        refuse("geometry", "manifest.empty", "expected at least one site with one layer, got none")
    count = 2 * sum(map(len, sites.values()))
    if count > MAX_TENSORS:
        refuse("geometry", "manifest.range", f"expected at most {MAX_TENSORS} tensors, got {count}")
    return Geometry(sites)


def _prompt(fields: Fields) -> PromptFormat:
    kind = cast(Literal["template", "chat"], fields.choice("kind", ("template", "chat")))
    prompt = PromptFormat(kind, fields.text("template"))
    fields.done()
    return prompt


def _tensor_file(fields: Fields) -> TensorFile:
    file = TensorFile(
        Digest.parse(fields.text("sha256")),
        fields.integer("size", 1, MAX_TENSOR_BYTES + 8 + MAX_TENSOR_HEADER),
    )
    fields.done()
    return file


def _probe(fields: Fields) -> Probe:
    probe = Probe(
        fields.integers("input_ids", MAX_PROBE_TOKENS),
        fields.integers("logit_ids", MAX_PROBE_TOKENS),
        fields.numbers("logits", MAX_PROBE_TOKENS),
    )
    fields.done()
    if not probe.input_ids or not probe.logits or len(probe.logit_ids) != len(probe.logits):
        refuse("probes", "manifest.probe", "expected an input, and one logit per logit id")
    if not all(math.isfinite(logit) for logit in probe.logits):
        refuse("probes", "manifest.probe", "expected finite logits")
    return probe
