"""Which prefixes a golden set is for."""

from __future__ import annotations

from collections.abc import Mapping

from foreword.artifact.manifest import Manifest
from foreword.errors import CompatibilityError
from foreword.evaluation.golden.golden_set import ANY, Header


def specialty_of(manifest: Manifest) -> str:
    """What a prefix is for: `specialty` of its training settings, else the last part of its name.

    Both stand in the manifest, so they are under the digest and the signature.
    """
    settings = manifest.training.get("settings")
    said = settings.get("specialty") if isinstance(settings, Mapping) else None
    return said if isinstance(said, str) and said else manifest.name.rpartition("/")[2]


def matches(header: Header, specialty: str) -> bool:
    """Whether a set can judge prefixes of a specialty."""
    return header.specialty in (ANY, specialty)


def require_match(header: Header, manifest: Manifest) -> None:
    """Refuse to judge a prefix by a set that is for something else.

    Raises:
        CompatibilityError: with code `golden.specialty`.
    """
    specialty = specialty_of(manifest)
    if not matches(header, specialty):
        raise CompatibilityError(
            f"the golden set {header.name}@{header.version} is for {header.specialty!r}, but "
            f"{manifest.name}@{manifest.version} is for {specialty!r}; name a set that fits",
            code="golden.specialty",
        )
