"""A chain as a YAML file: which prefix takes which step, and what each step reads (docs/gates.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from foreword.artifact import Digest
from foreword.config import load_settings
from foreword.evaluation.gates.chains import Chain, Step


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ChainStep(_Frozen):
    """One step."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
    """What later steps call its answer, such as `{planner}`."""
    prefix: str | None = None
    """Artifact directory or reference to a registry; none for the bare model."""
    inputs: dict[str, str] = Field(default_factory=lambda: {"input": "{input}"})
    """Column of the prefix's prompt to a text with places."""


class ChainFile(_Frozen):
    """All of the file."""

    name: str
    specialty: str
    """What the chain is for; a golden set has to be for it too."""
    steps: Annotated[tuple[ChainStep, ...], Field(min_length=1, max_length=32)]

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Each prefix it names, once."""
        return tuple(dict.fromkeys(step.prefix for step in self.steps if step.prefix is not None))

    def chain(self, name: str, digests: Mapping[str, Digest]) -> Chain:
        """The chain with its references resolved; `name` is its part in the comparison.

        Raises:
            UsageError: two steps have one name (`chain.steps`).
        """
        return Chain(
            name,
            tuple(
                Step(step.name, digests[step.prefix] if step.prefix else None, dict(step.inputs))
                for step in self.steps
            ),
        )


def load_chain(file: Path) -> ChainFile:
    """Read a chain file.

    Raises:
        ConfigError: an unknown key, with the nearest known one, or a value that cannot be used.
    """
    return load_settings(ChainFile, file)
