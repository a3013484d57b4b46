"""Where a prefix attaches and which shape it has there: the facts both sides must agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Site(StrEnum):
    """A kind of attention that can carry a prefix."""

    DECODER = "decoder"
    """Self-attention of a decoder (causal)."""
    ENCODER = "encoder"
    """Self-attention of an encoder (bidirectional)."""
    CROSS = "cross"
    """Attention of a decoder over the encoder's output."""


@dataclass(frozen=True, slots=True)
class LayerGeometry:
    """Shape of one layer's keys and values: `[kv_heads, token, key_dim]` and `[.., value_dim]`."""

    kv_heads: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True)
class Geometry:
    """Per site and layer index, the shape of keys and values. Layers may be missing or differ."""

    sites: Mapping[Site, Mapping[int, LayerGeometry]]

    def __post_init__(self) -> None:
        ordered = {
            site: MappingProxyType(dict(sorted(self.sites[site].items())))
            for site in Site
            if self.sites.get(site)
        }
        object.__setattr__(self, "sites", MappingProxyType(ordered))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Geometry):
            return NotImplemented
        return {s: dict(v) for s, v in self.sites.items()} == {
            s: dict(v) for s, v in other.sites.items()
        }

    def __hash__(self) -> int:
        return hash(tuple((s, tuple(v.items())) for s, v in self.sites.items()))

    def covers(self, other: Geometry) -> bool:
        """True if every site and layer of `other` is here with the same shape."""
        return all(
            self.sites.get(site, {}).get(index) == layer
            for site, layers in other.sites.items()
            for index, layer in layers.items()
        )

    def values_per_token(self) -> int:
        """How many numbers one virtual token holds over all sites and layers."""
        return sum(
            layer.kv_heads * (layer.key_dim + layer.value_dim)
            for layers in self.sites.values()
            for layer in layers.values()
        )
