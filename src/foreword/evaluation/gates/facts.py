"""What a gate takes from the artifact itself: facts under its digest and its signature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foreword.artifact import Digest, Manifest
from foreword.evaluation.golden import specialty_of


@dataclass(frozen=True)
class ArtifactFacts:
    """A candidate as its manifest tells of it; losses are mean nats per target token."""

    name: str
    version: str
    digest: Digest
    specialty: str
    held_out_loss: float | None = None
    frozen_loss: float | None = None
    """Held-out loss of the base without a prefix."""
    training_loss: float | None = None
    """On some of the rows it was trained on."""


def facts_of(manifest: Manifest, digest: Digest) -> ArtifactFacts:
    """The facts of a manifest; a loss its training record does not give is None."""
    metrics = manifest.training.get("metrics")
    said: Mapping[str, Any] = metrics if isinstance(metrics, Mapping) else {}
    return ArtifactFacts(
        manifest.name,
        manifest.version,
        digest,
        specialty_of(manifest),
        _loss(said.get("held_out_loss")),
        _loss(said.get("frozen_loss")),
        _loss(said.get("training_loss")),
    )


def _loss(value: Any) -> float | None:
    """The training record is free form, so it may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
