"""An answer, as it came from whatever generated it."""

from __future__ import annotations

from dataclasses import dataclass

from foreword.artifact import Digest


@dataclass(frozen=True)
class Answer:
    text: str
    digest: Digest | None
    """Of the prefix that was attached, as the engine says; None for the bare model."""
    tokens: int | None = None
    """Tokens of the answer, where the engine says."""
    seconds: float | None = None
    """Of an endpoint: the whole request. Of the engine in a batch: from the step that gave the first
    token to the last, without waiting. Compare only what ran in one pass."""
