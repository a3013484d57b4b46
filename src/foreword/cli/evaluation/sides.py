"""What a side of a comparison may say, and who answers for it.

base                the bare model of --base
URL#MODEL           a model at an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1#acme/support
a directory         the artifact in it, as it is
anything else       a reference to a registry: fetched and verified, but for the attestations that are to
                    be made yet
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.errors import NotFound, UsageError

if TYPE_CHECKING:
    from foreword.artifact import Artifact, Digest
    from foreword.evaluation.gates.judging import Contestant
    from foreword.evaluation.runs.endpoint import Endpoint

BARE = "base"


@dataclass(frozen=True)
class Places:
    """Where references and keys are looked up."""

    registry: Path | None = None
    trust: Path | None = None
    key_file: Path | None = None


def contestant(name: str, side: str, places: Places) -> Contestant:
    """Who answers for a side.

    Raises:
        ArtifactError, NotFound, RegistryError, TrustError: it cannot be had, and why.
        UsageError: an endpoint without a model (`evaluation.side`).
    """
    from foreword.evaluation.gates.judging import Contestant

    if side == BARE:
        return Contestant(name)
    if side.startswith(("http://", "https://")):
        asked = endpoint(side, places)
        return Contestant(name, None, asked, asked.model or "")
    return Contestant(name, open_side(side, places))


def endpoint(side: str, places: Places) -> Endpoint:
    """The endpoint of URL#MODEL, which also is the model to judge with."""
    from foreword.evaluation.runs.endpoint import Endpoint

    url, _, model = side.partition("#")
    if not model:
        raise UsageError(
            f"expected URL#MODEL, such as http://127.0.0.1:8000/v1#acme/support, got {side[:80]!r}",
            code="evaluation.side",
        )
    return Endpoint(url, _key(places.key_file), model)


def open_side(side: str, places: Places) -> Artifact:
    """An artifact, from a directory or a registry."""
    from foreword.artifact import open_artifact

    if Path(side).is_dir():
        return open_artifact(side)
    return fetch(side, places)


def fetch(reference: str, places: Places) -> Artifact:
    """The artifact of a reference. What is to be judged has no verdict yet, so none is asked for."""
    from foreword.registry.claims import without_requirements
    from foreword.registry.references import parse_reference
    from foreword.registry.registry import Registry
    from foreword.signing.store import load_policy

    meant = parse_reference(reference)
    with Registry.open(places.registry) as registry:
        digest = registry.resolve(meant).digest
        policy = without_requirements(load_policy(places.trust))
        return registry.fetch(digest, policy, datetime.now(UTC)).artifact


def stable_of(name: str, other_than: Digest, places: Places) -> str | None:
    """The reference of what is released under a name, unless it is this very version or nothing is."""
    from foreword.registry.registry import Registry

    try:
        with Registry.open(places.registry) as registry:
            known = registry.refresh().names.get(name)
    except NotFound:
        return None
    stable = known.release.stable if known and known.release else None
    return None if stable in (None, other_than) else str(stable)


def names_of(sides: Sequence[str]) -> list[str]:
    """The sides as names of variants, told apart if two say the same."""
    seen: dict[str, int] = {}
    names = []
    for side in sides:
        seen[side] = seen.get(side, 0) + 1
        names.append(side if seen[side] == 1 else f"{side} ({seen[side]})")
    return names


def _key(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("FOREWORD_API_KEY") or None
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{file} cannot be read as a key ({e})", code="evaluation.key") from e
