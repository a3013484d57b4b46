"""A variant: one way of answering that is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foreword.artifact import Digest, PromptFormat


@dataclass(frozen=True)
class Variant:
    name: str
    """Its part in the comparison, such as `base`, `incumbent` or `candidate`; unique in a run."""
    digest: Digest | None
    """Of the prefix; None for the bare model, and for an endpoint that names none."""
    route: str
    """Where it is asked: `engine`, or the model name at an endpoint."""
    base: str
    """Fingerprint of the base model; for an endpoint of somebody else's, its address."""
    prompt: PromptFormat | None = None
    """How rows are put to it. None: as the prefix was trained, or as they are. The bare model is
    compared fairly only with the prompt of the prefix beside it."""

    def to_json(self) -> dict[str, Any]:
        """What its answers depend on; the name is not among it."""
        prompt = self.prompt and {"kind": self.prompt.kind, "template": self.prompt.template}
        return {
            "digest": str(self.digest) if self.digest else None,
            "route": self.route,
            "base": self.base,
            "prompt": prompt,
        }
