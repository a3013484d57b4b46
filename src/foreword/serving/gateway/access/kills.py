"""Kill switches: what is not used from this moment on, whoever may use it otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from foreword.artifact import Digest
from foreword.errors import ArtifactError, PrefixUnavailable, UsageError
from foreword.registry.references import ByAlias, parse_reference
from foreword.serving.gateway.access.words import refuse, require_line, require_moment


@dataclass(frozen=True)
class Kill:
    """Why something was switched off."""

    reason: str
    by: str
    """A key id, or USER@HOST."""
    when: datetime

    def __post_init__(self) -> None:
        require_line("kills.reason", self.reason)
        require_line("kills.by", self.by)
        require_moment("kills.when", self.when)


def require_target(target: str) -> None:
    """A name, `name@version` or a digest. An alias moves, so nobody could say what was killed."""
    try:
        reference = parse_reference(target)
    except (ArtifactError, UsageError) as e:
        refuse("kills", str(e), e)
    if isinstance(reference, ByAlias):
        refuse("kills", f"an alias moves; name a version or a digest instead of {target[:130]!r}")


def targets_of(name: str, version: str, digest: Digest) -> tuple[str, ...]:
    """Every way in which a version may be killed, the widest first."""
    return name, f"{name}@{version}", str(digest)


def killed(name: str, version: str) -> PrefixUnavailable:
    """What whoever asks for a killed version is told. The reason is for the operator."""
    return PrefixUnavailable(
        f"{name}@{version} is switched off; ask whoever runs this service", code="prefix.killed"
    )
