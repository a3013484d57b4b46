"""A window: rows as a drift test needs them, in one file whose digest names it.

    foreword-window/1 <canonical JSON header>\\n<safetensors: `vectors` and one tensor per column>

The reference window is frozen once, when a version is released, and never moves: else a slow drift would
take its own reference along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from foreword.artifact import Digest, canonical
from foreword.artifact.fields import Fields
from foreword.artifact.tensors import TensorSpec, parse, serialize
from foreword.errors import ArtifactError, UsageError
from foreword.evaluation.drift.distances import Vectors
from foreword.evaluation.drift.observations import COLUMNS, Observation, column
from foreword.evaluation.drift.permutation import Numbers
from foreword.evaluation.metrics.relevancy import Embed, hashed_ngrams
from foreword.signing.times import moment, stamp

_MAGIC = b"foreword-window/1 "
MOST_ROWS = 500
"""Of a window: MMD compares every row with every other."""
MAX_BYTES = 1 << 26
_MOST_DIMENSIONS = 1 << 16


@dataclass(frozen=True)
class Encoder:
    """What makes vectors of texts. Windows of two encoders are not compared."""

    name: str
    embed: Embed


def _unit_ngrams(texts: Sequence[str]) -> Vectors:
    counts = hashed_ngrams(texts)
    lengths = np.linalg.norm(counts, axis=1, keepdims=True)
    return np.asarray(counts / np.where(lengths == 0, 1.0, lengths), dtype=np.float32)


NGRAMS = Encoder("hashed character 4-grams/1", _unit_ngrams)
"""Needs no model; sees other words, not another meaning of the same words."""


@dataclass(frozen=True, eq=False)
class Window:
    """Rows of one version."""

    digest: Digest
    """Of the prefix."""
    encoder: str
    created: str
    """UTC, as 2026-01-31T12:00:00Z."""
    vectors: Vectors
    """Of the inputs `[rows, d]`."""
    columns: Mapping[str, Numbers]
    """By name; a column has as many numbers as rows that have it."""

    def to_bytes(self) -> bytes:
        arrays: dict[str, npt.NDArray[np.floating]] = {"vectors": self.vectors, **self.columns}
        specs = [TensorSpec(name, "float32", arrays[name].shape) for name in sorted(arrays)]
        header = {
            "digest": str(self.digest),
            "encoder": self.encoder,
            "created": self.created,
            "shapes": {spec.name: list(spec.shape) for spec in specs},
        }
        data = {name: array.astype("<f4").tobytes() for name, array in arrays.items()}
        return b"".join([_MAGIC, canonical.encode(header), b"\n", serialize(data, specs)])

    @classmethod
    def from_bytes(cls, data: bytes) -> Window:
        """
        Raises:
            ArtifactError: it is no window, or was changed (`window.malformed`, `tensor.*`).
        """
        head, newline, tensors = data.partition(b"\n")
        if not head.startswith(_MAGIC) or not newline:
            raise ArtifactError(
                "expected a window that Foreword froze, got another file; freeze it again",
                code="window.malformed",
            )
        fields = Fields(canonical.decode(head.removeprefix(_MAGIC)), "window")
        digest, encoder = Digest.parse(fields.text("digest")), fields.text("encoder")
        created = stamp(moment(fields.text("created")))
        specs = _specs(fields.object("shapes"))
        fields.done()
        parsed = parse(tensors, specs)
        arrays = {
            spec.name: np.frombuffer(parsed[spec.name], dtype="<f4").reshape(spec.shape)
            for spec in specs
        }
        columns = {name: arrays[name].astype(np.float64) for name in COLUMNS if name in arrays}
        return cls(digest, encoder, created, arrays["vectors"].astype(np.float32), columns)


def make_window(
    digest: Digest,
    observations: Sequence[Observation],
    encoder: Encoder,
    now: datetime,
    seed: int = 0,
) -> Window:
    """The window of some observations; of more than `MOST_ROWS` as many are drawn.

    Raises:
        UsageError: there are none (`drift.rows`).
    """
    kept = sample(observations, seed)
    if not kept:
        raise UsageError("a window needs rows, and there are none", code="drift.rows")
    vectors = np.asarray(encoder.embed([each.text for each in kept]), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(kept) or not np.isfinite(vectors).all():
        raise UsageError(
            f"expected {len(kept)} finite vectors of one length from {encoder.name}, got an array of shape "
            f"{vectors.shape}",
            code="drift.vectors",
        )
    numbers = {name: column(kept, name) for name in COLUMNS}
    columns = {name: _single(each) for name, each in numbers.items() if len(each)}
    return Window(digest, encoder.name, stamp(now), vectors, columns)


def sample(observations: Sequence[Observation], seed: int = 0) -> tuple[Observation, ...]:
    """At most `MOST_ROWS` of them, drawn without replacement, in their order."""
    if len(observations) <= MOST_ROWS:
        return tuple(observations)
    draw = np.random.default_rng([seed, len(observations)])
    places = sorted(draw.choice(len(observations), MOST_ROWS, replace=False))
    return tuple(observations[place] for place in places)


def _single(numbers: Numbers) -> Numbers:
    """As they come back from a file, so that a window compares equal with itself."""
    return numbers.astype(np.float32).astype(np.float64)


def _specs(shapes: Fields) -> list[TensorSpec]:
    known: Callable[[str], bool] = shapes.has
    specs = []
    for name in ("vectors", *COLUMNS):
        if name == "vectors" or known(name):
            shape = shapes.integers(name, 2)
            if len(shape) != (2 if name == "vectors" else 1) or not _is_bounded(shape):
                raise ArtifactError(
                    f"window.shapes.{name}: expected at most {MOST_ROWS} rows, got {shape}",
                    code="window.malformed",
                )
            specs.append(TensorSpec(name, "float32", shape))
    shapes.done()
    return sorted(specs, key=lambda spec: spec.name)


def _is_bounded(shape: tuple[int, ...]) -> bool:
    return 1 <= shape[0] <= MOST_ROWS and all(1 <= each <= _MOST_DIMENSIONS for each in shape[1:])


def as_json(window: Window) -> dict[str, Any]:
    """What a window is, without its numbers."""
    return {
        "digest": str(window.digest),
        "encoder": window.encoder,
        "created": window.created,
        "rows": len(window.vectors),
        "columns": {name: len(each) for name, each in window.columns.items()},
    }
