"""A geometry in few words, because the journal repeats it with every version.

Neighbouring layers of one shape become one span of five numbers, first layer, last layer, kv_heads,
key_dim, value_dim; a site is its spans one after another:

    {"decoder": [0, 31, 8, 128, 128]}
"""

from __future__ import annotations

from functools import lru_cache

from foreword.artifact import Geometry, LayerGeometry, Site
from foreword.artifact.fields import Fields, refuse
from foreword.artifact.manifest import MAX_DIM, MAX_HEADS, MAX_LAYERS

_SITES = tuple(Site)
_LEAST = (0, 0, 1, 1, 1)
_MOST = (MAX_LAYERS, MAX_LAYERS, MAX_HEADS, MAX_DIM, MAX_DIM)
_WIDTH = len(_MOST)


def spans_of(geometry: Geometry) -> dict[str, list[int]]:
    """The spans of each site, layers rising."""
    sites = {}
    for site, layers in geometry.sites.items():
        spans: list[list[int]] = []
        for index, layer in layers.items():
            shape = [layer.kv_heads, layer.key_dim, layer.value_dim]
            if spans and spans[-1][1] == index - 1 and spans[-1][2:] == shape:
                spans[-1][1] = index
            else:
                spans.append([index, index, *shape])
        sites[str(site)] = [number for span in spans for number in span]
    return sites


def geometry_of(fields: Fields) -> Geometry:
    """Read what `spans_of` wrote.

    Raises:
        ArtifactError: not spans, out of range, or layers that do not rise.
    """
    found = tuple(
        (site, fields.integers(site, _WIDTH * MAX_LAYERS)) for site in _SITES if fields.has(site)
    )
    fields.done()
    if not found:
        refuse("geometry", "manifest.empty", "expected at least one site")
    return _geometry(found)


# Thousands of versions share a handful of geometries; each is built, and kept in memory, once.
@lru_cache(maxsize=256)
def _geometry(sites: tuple[tuple[Site, tuple[int, ...]], ...]) -> Geometry:
    return Geometry({site: _layers(site, numbers) for site, numbers in sites})


def _layers(site: Site, numbers: tuple[int, ...]) -> dict[int, LayerGeometry]:
    layers: dict[int, LayerGeometry] = {}
    next_free = 0
    if not numbers or len(numbers) % _WIDTH:
        refuse(f"geometry.{site}", "manifest.value", "expected spans of five numbers each")
    for start in range(0, len(numbers), _WIDTH):
        span = numbers[start : start + _WIDTH]
        if any(not a <= n <= b for a, n, b in zip(_LEAST, span, _MOST, strict=True)):
            refuse(f"geometry.{site}", "manifest.range", f"a span is out of range: {span}")
        first, last, *shape = span
        if not next_free <= first <= last:
            refuse(f"geometry.{site}", "manifest.range", f"the layers do not rise: {span}")
        layers |= dict.fromkeys(range(first, last + 1), LayerGeometry(*shape))
        next_free = last + 1
    return layers
