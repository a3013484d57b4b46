"""Decoding: how answers are chosen, the same for all variants of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from foreword.errors import UsageError


@dataclass(frozen=True)
class Decoding:
    max_new_tokens: int = 128
    temperature: float = 0.0
    """0: greedy, which is what repeats."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or not 0.0 <= self.temperature <= 10.0:
            raise UsageError(
                "expected at least 1 new token and a temperature from 0 to 10, got "
                f"{self.max_new_tokens} and {self.temperature:g}",
                code="evaluation.decoding",
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
