"""`PrefixKV`: a prefix in memory, as attention sees it.

Axis order everywhere: `[kv_head, token, head_dim]`. Keys are stored after rotary embedding, for
positions 0..m-1; real tokens start at position m. Every backend converts at its own edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor

from foreword.artifact import Artifact, Dtype, Geometry, LayerGeometry, Site
from foreword.errors import CompatibilityError

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
)


@dataclass(frozen=True)
class LayerKV:
    """One layer's part: `key [kv_head, token, key_dim]` and `value [kv_head, token, value_dim]`."""

    key: Tensor
    value: Tensor

    @property
    def geometry(self) -> LayerGeometry:
        return LayerGeometry(self.key.shape[0], self.key.shape[2], self.value.shape[2])


@dataclass(frozen=True)
class PrefixKV:
    """Keys and values of `length` virtual tokens for any subset of attention sites and layers.

    The value itself is immutable; its tensors may carry gradients while a prefix is being trained.
    """

    length: int
    layers: Mapping[Site, Mapping[int, LayerKV]]

    def __post_init__(self) -> None:
        ordered = {
            site: MappingProxyType(dict(sorted(self.layers[site].items())))
            for site in Site
            if self.layers.get(site)
        }
        object.__setattr__(self, "layers", MappingProxyType(ordered))
        self._check_shapes()

    def _check_shapes(self) -> None:
        if self.length < 1 or not self.layers:
            raise CompatibilityError(
                "a prefix needs at least one virtual token and one layer; to run the bare model, "
                "attach no prefix",
                code="prefix.empty",
            )
        for site, index, layer in self:
            for what, tensor in (("key", layer.key), ("value", layer.value)):
                if tensor.ndim != 3 or tensor.shape[1] != self.length:
                    raise CompatibilityError(
                        f"{site} layer {index}: expected a {what} of shape [kv_head, "
                        f"{self.length}, head_dim], got {list(tensor.shape)}",
                        code="prefix.shape",
                    )
            if layer.key.shape[0] != layer.value.shape[0]:
                raise CompatibilityError(
                    f"{site} layer {index}: key has {layer.key.shape[0]} heads, value has "
                    f"{layer.value.shape[0]}; they must agree",
                    code="prefix.shape",
                )
        if len({t.dtype for _, _, layer in self for t in (layer.key, layer.value)}) != 1:
            raise CompatibilityError("all tensors of a prefix must share one dtype")

    def __iter__(self) -> Iterator[tuple[Site, int, LayerKV]]:  # type: ignore[override]
        for site, layers in self.layers.items():
            for index, layer in layers.items():
                yield site, index, layer

    @property
    def geometry(self) -> Geometry:
        """Shape per site and layer, to compare with a base model's."""
        return Geometry(
            {s: {i: kv.geometry for i, kv in layers.items()} for s, layers in self.layers.items()}
        )

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self))[2].key.dtype

    @property
    def device(self) -> torch.device:
        return next(iter(self))[2].key.device

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values: m * sum(kv_heads * (key_dim + value_dim)) * item size."""
        return sum(t.numel() * t.element_size() for _, _, kv in self for t in (kv.key, kv.value))

    def is_finite(self) -> bool:
        """True if no key or value is NaN or infinite."""
        return all(
            bool(torch.isfinite(t).all()) for _, _, layer in self for t in (layer.key, layer.value)
        )

    def to(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> PrefixKV:
        """The same prefix elsewhere; a dtype is converted only when asked for."""
        return PrefixKV(
            self.length,
            {
                site: {
                    i: LayerKV(
                        kv.key.to(device=device, dtype=dtype),
                        kv.value.to(device=device, dtype=dtype),
                    )
                    for i, kv in layers.items()
                }
                for site, layers in self.layers.items()
            },
        )

    def detach(self) -> PrefixKV:
        """A copy that shares nothing with the training graph."""
        return PrefixKV(
            self.length,
            {
                site: {
                    i: LayerKV(kv.key.detach().clone(), kv.value.detach().clone())
                    for i, kv in layers.items()
                }
                for site, layers in self.layers.items()
            },
        )

    def retain_grad(self) -> None:
        """Keep the gradients of these very tensors in the next backward pass, to look at them."""
        for _, _, layer in self:
            for tensor in (layer.key, layer.value):
                if tensor.requires_grad:
                    tensor.retain_grad()

    def to_bytes(self) -> dict[str, bytes]:
        """Little-endian bytes per tensor name (`decoder.0.key`), as an artifact stores them."""
        return {
            f"{site}.{index}.{part}": _tensor_bytes(tensor)
            for site, index, layer in self
            for part, tensor in (("key", layer.key), ("value", layer.value))
        }

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> PrefixKV:
        """Build the tensors of an artifact whose bytes `open_artifact` has already checked."""
        manifest = artifact.manifest
        return from_bytes(manifest.geometry, manifest.length, manifest.dtype, artifact.tensors())


def from_bytes(
    geometry: Geometry, length: int, dtype: str, tensors: Mapping[str, bytes | memoryview]
) -> PrefixKV:
    """Build a prefix from little-endian bytes by tensor name, `[kv_head, token, head_dim]` each."""

    def tensor(name: str, heads: int, dim: int) -> Tensor:
        # A copy: torch would otherwise share memory that must never change.
        flat = torch.frombuffer(bytearray(tensors[name]), dtype=DTYPES[dtype])
        return flat.view(heads, length, dim)

    return PrefixKV(
        length,
        {
            site: {
                i: LayerKV(
                    tensor(f"{site}.{i}.key", layer.kv_heads, layer.key_dim),
                    tensor(f"{site}.{i}.value", layer.kv_heads, layer.value_dim),
                )
                for i, layer in layers.items()
            }
            for site, layers in geometry.sites.items()
        },
    )


def _tensor_bytes(tensor: Tensor) -> bytes:
    # numpy has no bfloat16: the bits travel as bytes, whatever the dtype.
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def dtype_name(dtype: torch.dtype) -> Dtype:
    """The manifest's name of a torch dtype; `CompatibilityError` for one that cannot be stored."""
    for name, known in DTYPES.items():
        if known == dtype:
            return cast(Dtype, name)
    raise CompatibilityError(
        f"a prefix is stored as one of {', '.join(DTYPES)}, got {dtype}", code="prefix.dtype"
    )
