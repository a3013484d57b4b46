"""What a request was resolved to. From here on only the digest counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foreword.artifact import Digest, PromptFormat
from foreword.serving.contract import BARE, AdapterSet

Arm = Literal["stable", "canary", "pinned"]


@dataclass(frozen=True)
class Prefix:
    """One version of a name, as a request uses it."""

    name: str
    version: str
    digest: Digest
    length: int
    """Virtual tokens; they count against the model's context."""
    prompt: PromptFormat
    """How inputs were put to the model when it was trained."""


@dataclass(frozen=True)
class Fallback:
    """Why another prefix, or the bare model, stands in for what was asked for."""

    wanted: str
    """The version that could not be used, `name@version`."""
    reason: str
    """Code of the error that it would have been, such as `prefix.fetch_failed`."""


@dataclass(frozen=True)
class Route:
    """The answer to "which prefix?", pinned for the whole request."""

    asked: str
    """`model` as the client wrote it."""
    prefix: Prefix | None
    """None: the bare model, which was asked for or which the tenant's policy allows instead."""
    arm: Arm | None
    """`pinned` if a version, an own alias or a digest was named; None for the bare model."""
    base: Digest
    """Fingerprint of the base model."""
    seq: int
    """The journal entry up to which releases were known."""
    fallback: Fallback | None = None

    @property
    def adapters(self) -> AdapterSet:
        return BARE if self.prefix is None else AdapterSet(self.prefix.digest)

    @property
    def model(self) -> str:
        """What answered, as a client may write it: `base`, or name and version."""
        return "base" if self.prefix is None else f"{self.prefix.name}@{self.prefix.version}"
