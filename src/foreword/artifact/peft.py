"""Interchange with PEFT: read prefix-tuning and CARTRIDGE adapters, write prefix-tuning ones.

PEFT keeps one matrix, `prompt_embeddings [m, layers * 2 * kv_heads * head_dim]`: per virtual token
the key and then the value of layer 0, of layer 1, and so on, heads side by side. Ours is
`[kv_head, token, head_dim]` per layer. Either way the numbers are only moved, as bits, so a round
trip is exact for every dtype. Needs no torch and no PEFT.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foreword.artifact.disk import not_written, read_bounded
from foreword.artifact.geometry import Geometry, LayerGeometry, Site
from foreword.artifact.manifest import MAX_LENGTH, Dtype
from foreword.artifact.package import Artifact
from foreword.artifact.tensors import TensorSpec, parse, serialize_matrix
from foreword.errors import ArtifactError, CompatibilityError, StorageError

CONFIG, WEIGHTS, MATRIX = "adapter_config.json", "adapter_model.safetensors", "prompt_embeddings"
_KINDS = ("PREFIX_TUNING", "CARTRIDGE")
_BITS: Mapping[str, str] = {"float32": "<u4", "bfloat16": "<u2", "float16": "<u2"}
_MAX_CONFIG = 1 << 20


@dataclass(frozen=True)
class PeftPrefix:
    """A prefix read from a PEFT adapter."""

    length: int
    dtype: Dtype
    geometry: Geometry
    tensors: Mapping[str, bytes]
    """Our names and axis order, ready for `pack`."""
    base_name: str
    """`base_model_name_or_path`, as PEFT recorded it; it proves nothing."""
    kind: str


def read_peft(directory: str | Path, base: Geometry) -> PeftPrefix:
    """Read an adapter for a base whose decoder has the given geometry.

    Raises:
        ArtifactError: not a PEFT prefix, pickled, or malformed.
        CompatibilityError: the adapter's shape is not this base's.
    """
    directory = Path(directory)
    config = _config(directory)
    layers = _uniform(base)
    length = config.get("num_virtual_tokens")
    if type(length) is not int or not 1 <= length <= MAX_LENGTH:
        raise ArtifactError(
            f"{CONFIG}: num_virtual_tokens should be 1 to {MAX_LENGTH}, got {str(length)[:80]!r}",
            code="peft.config",
        )
    if not (directory / WEIGHTS).exists():
        pickled = (directory / "adapter_model.bin").exists()
        raise ArtifactError(
            f"{directory} has no {WEIGHTS}"
            + ("; its adapter_model.bin is a pickle, which is never loaded: save it again with "
               "safe_serialization=True" if pickled else ""),
            code="peft.pickle" if pickled else "artifact.missing",
        )  # fmt: skip
    shape = layers[0]
    width = len(layers) * 2 * shape.kv_heads * shape.key_dim
    matrix, dtype = _matrix(directory / WEIGHTS, length, width)
    return PeftPrefix(
        length,
        dtype,
        Geometry({Site.DECODER: dict(enumerate(layers))}),
        _split(matrix, layers),
        str(config.get("base_model_name_or_path") or ""),
        str(config["peft_type"]),
    )


def write_peft(artifact: Artifact, directory: str | Path) -> Path:
    """Write a prefix-tuning adapter that `PeftModel.from_pretrained` loads.

    Raises:
        CompatibilityError: PEFT cannot hold it: other sites than the decoder, layers left out, or
            layers that differ.
        StorageError: the directory exists, or the disk refused; nothing was written.
    """
    manifest, target = artifact.manifest, Path(directory)
    if set(manifest.geometry.sites) != {Site.DECODER}:
        raise CompatibilityError(
            f"PEFT keeps prefixes for decoder self-attention only, this one has "
            f"{', '.join(manifest.geometry.sites)}",
            code="peft.sites",
        )
    layers = _uniform(manifest.geometry)
    matrix = _join(artifact.tensors(), layers, manifest.length, manifest.dtype)
    shape = layers[0]
    config = {
        "peft_type": "PREFIX_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": manifest.base.id,
        "inference_mode": True,
        "num_virtual_tokens": manifest.length,
        "num_layers": len(layers),
        # PEFT reshapes by these two; with grouped heads they count key/value heads.
        "num_attention_heads": shape.kv_heads,
        "token_dim": shape.kv_heads * shape.key_dim,
        "num_transformer_submodules": 1,
        "encoder_hidden_size": shape.kv_heads * shape.key_dim,
        "prefix_projection": False,
    }
    weights = serialize_matrix(MATRIX, matrix.tobytes(), manifest.dtype, matrix.shape)
    return _write(target, json.dumps(config, indent=2, sort_keys=True).encode(), weights)


def _config(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise ArtifactError(f"there is no adapter at {directory}", code="artifact.missing")
    try:
        config = json.loads(read_bounded(directory / CONFIG, _MAX_CONFIG))
    except (ValueError, RecursionError) as e:
        raise ArtifactError(
            f"{directory / CONFIG} is not valid JSON ({e})", code="peft.config"
        ) from e
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind not in _KINDS:
        raise ArtifactError(
            f"{directory} holds a PEFT adapter of type {str(kind)[:80]!r}; expected {' or '.join(_KINDS)}",
            code="peft.kind",
        )
    return dict(config)


def _uniform(geometry: Geometry) -> list[LayerGeometry]:
    """The decoder's layers, which PEFT requires to be complete and alike."""
    decoder = geometry.sites.get(Site.DECODER, {})
    layers = list(decoder.values())
    alike = all(layer == layers[0] and layer.key_dim == layer.value_dim for layer in layers)
    if not layers or list(decoder) != list(range(len(layers))) or not alike:
        raise CompatibilityError(
            "PEFT needs every decoder layer, all with the same heads and dimensions; this geometry "
            "leaves some out or has layers that differ",
            code="peft.layers",
        )
    return layers


def _matrix(path: Path, length: int, width: int) -> tuple[NDArray[Any], Dtype]:
    """The one tensor of an adapter file, as unsigned integers of the same size."""
    try:
        data = read_bounded(path, 4 * length * width + 4096)
    except ArtifactError as e:
        raise _mismatch(e, length, width) from e
    problems = []
    for dtype in ("float32", "bfloat16", "float16"):
        spec = TensorSpec(MATRIX, dtype, (length, width))
        try:
            view = parse(data, [spec], metadata=True)[MATRIX]
        except ArtifactError as e:
            problems.append(e)
            if e.code == "tensor.dtype":
                continue
            raise _mismatch(e, length, width) from e
        return np.frombuffer(view, _BITS[dtype]).reshape(length, width), _as_dtype(dtype)
    raise problems[0]


def _mismatch(error: ArtifactError, length: int, width: int) -> ArtifactError | CompatibilityError:
    if error.code in ("tensor.shape", "tensor.offsets", "artifact.trailing"):
        return CompatibilityError(
            f"the adapter does not fit this base: expected {MATRIX} of [{length}, {width}] ({error})",
            code="peft.shape",
        )
    return error


def _as_dtype(name: str) -> Dtype:
    return "float32" if name == "float32" else "bfloat16" if name == "bfloat16" else "float16"


def _split(matrix: NDArray[Any], layers: list[LayerGeometry]) -> dict[str, bytes]:
    """`[m, layer * 2 * head * dim]` to `[head, m, dim]` per layer and part."""
    shape = layers[0]
    blocks = matrix.reshape(matrix.shape[0], len(layers), 2, shape.kv_heads, shape.key_dim)
    moved = blocks.transpose(1, 2, 3, 0, 4)
    return {
        f"{Site.DECODER}.{layer}.{part}": np.ascontiguousarray(moved[layer, side]).tobytes()
        for layer in range(len(layers))
        for side, part in enumerate(("key", "value"))
    }


def _join(
    tensors: Mapping[str, memoryview], layers: list[LayerGeometry], length: int, dtype: str
) -> NDArray[Any]:
    """The inverse of `_split`."""
    shape = (layers[0].kv_heads, length, layers[0].key_dim)
    stacked = np.stack(
        [
            np.stack(
                [
                    np.frombuffer(tensors[f"{Site.DECODER}.{i}.{part}"], _BITS[dtype]).reshape(
                        shape
                    )
                    for part in ("key", "value")
                ]
            )
            for i in range(len(layers))
        ]
    )
    return np.ascontiguousarray(stacked.transpose(3, 0, 1, 2, 4)).reshape(length, -1)


def _write(target: Path, config: bytes, weights: bytes) -> Path:
    if target.exists():
        raise StorageError(f"{target} exists already; choose another --out", code="storage.exists")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            draft = Path(scratch) / "adapter"
            draft.mkdir()
            (draft / CONFIG).write_bytes(config)
            (draft / WEIGHTS).write_bytes(weights)
            os.rename(draft, target)
    except OSError as e:
        raise not_written(target, e) from e
    return target
