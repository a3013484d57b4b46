"""Small artifacts made without torch."""

from __future__ import annotations

import struct
from typing import Any

from foreword.artifact import (
    Artifact,
    BaseRef,
    Digest,
    Geometry,
    LayerGeometry,
    Probe,
    PromptFormat,
    Site,
    pack,
)
from foreword.artifact.tensors import TensorSpec, expected_tensors

LENGTH = 3
LAYER = LayerGeometry(2, 4, 4)
GEOMETRY = Geometry({Site.DECODER: {0: LAYER, 1: LAYER}, Site.CROSS: {1: LayerGeometry(1, 4, 2)}})
SPECS = expected_tensors(GEOMETRY, LENGTH, "float32")


def numbers(spec: TensorSpec, start: float = 1.0) -> bytes:
    count = spec.nbytes // 4
    return struct.pack(f"<{count}f", *(start + i / 8 for i in range(count)))


def tensors() -> dict[str, bytes]:
    return {spec.name: numbers(spec, float(i)) for i, spec in enumerate(SPECS)}


def sample(**changes: Any) -> Artifact:
    """A good artifact; keyword arguments replace what `pack` is given."""
    given: dict[str, Any] = {
        "name": "acme/support",
        "version": "1.2.3",
        "created": "2026-01-31T12:00:00Z",
        "base": BaseRef("some/base", Digest.of(b"weights"), Digest.of(b"words"), "llama", 64),
        "geometry": GEOMETRY,
        "length": LENGTH,
        "dtype": "float32",
        "prompt": PromptFormat("template", "{input}\n"),
        "training": {"seed": 7, "note": "größer als π"},
        "probes": (Probe((5, 6), (0, 9), (0.25, -1.5)),),
        "tensors": tensors(),
    }
    return pack(**{**given, **changes})
