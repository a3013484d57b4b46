"""Which prefix made an answer: what every response tells, in its headers and in its body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foreword.artifact import Digest

BASE = "base"
"""The bare model, as clients name it."""


@dataclass(frozen=True)
class StandIn:
    """Another prefix than the first choice answered, as the tenant's policy allows."""

    wanted: str
    """`name@version` of the first choice."""
    reason: str
    """Code of the error that it would have been."""


@dataclass(frozen=True)
class Receipt:
    """`digest` is the one the engine said it attached, never the one that was asked for."""

    base: Digest
    """Fingerprint of the base model."""
    release_seq: int
    """The journal entry up to which releases were known."""
    prefix: str | None = None
    """`tenant/name`; None: the bare model answered."""
    version: str | None = None
    digest: Digest | None = None
    length: int = 0
    """Virtual tokens."""
    arm: str | None = None
    fallback: StandIn | None = None

    @property
    def model(self) -> str:
        """What answered, as a client may write it in `model`."""
        return BASE if self.prefix is None else f"{self.prefix}@{self.version}"

    def headers(self) -> dict[str, str]:
        """Headers of a response; what does not apply is left out."""
        said = {
            "X-Foreword-Prefix": self.prefix or BASE,
            "X-Foreword-Version": self.version,
            "X-Foreword-Digest": self.digest and str(self.digest),
            "X-Foreword-Arm": self.arm,
            "X-Foreword-Base": str(self.base),
            "X-Foreword-Fallback": self.fallback and self.fallback.reason,
        }
        return {name: value for name, value in said.items() if value}

    def body(self) -> dict[str, Any]:
        """The field `foreword` of a response."""
        fallback = self.fallback and {
            "wanted": self.fallback.wanted,
            "reason": self.fallback.reason,
        }
        return {
            "prefix": self.prefix,
            "version": self.version,
            "digest": self.digest and str(self.digest),
            "length": self.length,
            "arm": self.arm,
            "base": str(self.base),
            "release_seq": self.release_seq,
            "fallback": fallback,
        }
