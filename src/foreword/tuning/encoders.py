"""What is trained: the keys and values themselves, or an MLP that makes them.

Both are dropped at export; only plain keys and values leave this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from foreword.artifact import Geometry, Site
from foreword.prefix.kv import LayerKV, PrefixKV
from foreword.tuning.recipe import PrefixSettings


class Encoder(Protocol):
    """Trainable parameters that become a prefix."""

    def __call__(self) -> PrefixKV:
        """The prefix as it is now, connected to the parameters."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> object: ...


def build_encoder(settings: PrefixSettings, start: PrefixKV, scale: PrefixKV) -> Encoder:
    """The encoder a recipe asks for, giving exactly `start` before the first step.

    `scale` is the keys and values of real text on the same model: the size that keys and values
    have there, layer by layer.
    """
    if settings.encoder == "mlp":
        return cast(Encoder, MlpEncoder(start, settings.hidden))
    return cast(Encoder, DirectEncoder(start, scale))


class DirectEncoder(nn.Module):
    """`start + size * offset`: trained are the offsets, in units of each layer's own size.

    Adam moves every number by about the learning rate whatever its gradient. Keys are several
    times larger than values and layers differ, so without the units one rate is too small for some
    and too large for others. The first virtual token is left out when sizes are measured: as an
    attention sink its keys are far larger than any other's.
    """

    def __init__(self, start: PrefixKV, scale: PrefixKV) -> None:
        super().__init__()
        self._length = start.length
        self._names: list[tuple[Site, int, str, str]] = []
        for site, index, layer in start:
            like = scale.layers[site][index]
            parts = (("key", layer.key, like.key), ("value", layer.value, like.value))
            for part, tensor, sample in parts:
                name = f"{site}_{index}_{part}"
                self._names.append((site, index, part, name))
                self.register_buffer(f"start_{name}", tensor.detach().clone())
                self.register_buffer(f"size_{name}", _size(sample))
                self.register_parameter(name, nn.Parameter(torch.zeros_like(tensor)))

    def forward(self) -> PrefixKV:
        parts: dict[Site, dict[int, dict[str, Tensor]]] = {}
        for site, index, part, name in self._names:
            start, size = getattr(self, f"start_{name}"), getattr(self, f"size_{name}")
            tensor = start + size * getattr(self, name)
            parts.setdefault(site, {}).setdefault(index, {})[part] = tensor
        return _assemble(self._length, parts)


class MlpEncoder(nn.Module):
    """The reparametrisation of Li & Liang (2021, section 4.3): embedding, linear, tanh, linear.

    The last layer starts at zero and its output is added to `start`, so training begins where the
    start is instead of at random keys and values.
    """

    def __init__(self, start: PrefixKV, hidden: int) -> None:
        super().__init__()
        self._length = start.length
        self._shapes: list[tuple[Site, int, str, int, int]] = []
        columns = []
        for site, index, layer in start:
            for part, tensor in (("key", layer.key), ("value", layer.value)):
                heads, _, dim = tensor.shape
                self._shapes.append((site, index, part, heads, dim))
                columns.append(tensor.detach().transpose(0, 1).reshape(self._length, heads * dim))
        self.register_buffer("start", torch.cat(columns, dim=1))
        width = cast(Tensor, self.start).shape[1]
        self.embedding = nn.Parameter(torch.randn(self._length, hidden))
        self.inner = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        self.to(start.device)

    def forward(self) -> PrefixKV:
        flat = cast(Tensor, self.start) + self.outer(torch.tanh(self.inner(self.embedding)))
        parts: dict[Site, dict[int, dict[str, Tensor]]] = {}
        for (site, index, part, heads, dim), chunk in zip(
            self._shapes, flat.split([h * d for *_, h, d in self._shapes], dim=1), strict=True
        ):
            tensor = chunk.view(self._length, heads, dim).transpose(0, 1)
            parts.setdefault(site, {}).setdefault(index, {})[part] = tensor
        return _assemble(self._length, parts)


def _assemble(length: int, parts: dict[Site, dict[int, dict[str, Tensor]]]) -> PrefixKV:
    return PrefixKV(
        length,
        {
            s: {i: LayerKV(kv["key"], kv["value"]) for i, kv in ls.items()}
            for s, ls in parts.items()
        },
    )


def _size(sample: Tensor) -> Tensor:
    """Root mean square over a real text's keys or values, without its first token; a scalar."""
    body = sample[:, 1:] if sample.shape[1] > 1 else sample
    return body.float().pow(2).mean().sqrt().to(sample.dtype)


def select(prefix: PrefixKV, settings: PrefixSettings) -> PrefixKV:
    """Only the sites and layers the recipe names."""
    return PrefixKV(
        prefix.length,
        {
            site: {
                index: layer
                for index, layer in layers.items()
                if settings.layers is None or index in settings.layers
            }
            for site, layers in prefix.layers.items()
            if settings.sites is None or site in settings.sites
        },
    )


def random_like(geometry: Geometry, length: int, seed: int, device: torch.device) -> PrefixKV:
    """Standard normal keys and values, the start PEFT uses."""
    generator = torch.Generator().manual_seed(seed)

    def draw(heads: int, dim: int) -> Tensor:
        return torch.randn(heads, length, dim, generator=generator).to(device)

    return PrefixKV(
        length,
        {
            site: {
                i: LayerKV(draw(g.kv_heads, g.key_dim), draw(g.kv_heads, g.value_dim))
                for i, g in layers.items()
            }
            for site, layers in geometry.sites.items()
        },
    )
