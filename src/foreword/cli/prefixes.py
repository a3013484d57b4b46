"""What `--prefix` and a row's own `prefix` may say, and the artifact it means.

a directory that exists   the artifact in it, as it is
anything else             a reference to a registry: fetched and verified by the trust policy
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.errors import NotFound, UsageError

if TYPE_CHECKING:
    from foreword.artifact import Artifact, Digest
    from foreword.registry.references import Reference
    from foreword.registry.registry import Registry


def open_prefixes(
    texts: Iterable[str], registry: Path | None = None, trust: Path | None = None
) -> dict[str, Artifact]:
    """The artifact of each text. A registry is opened only if one of them is a reference.

    Every reference is looked up once, and every version is read once.

    Raises:
        ArtifactError: a directory that is no artifact, or text that is neither path nor reference.
        NotFound, RegistryError: the registry does not have it, or it may not be used any more.
        TrustError: the policy does not trust it.
        StorageError: disk, database or blobs refused.
    """
    from foreword.artifact import open_artifact

    found: dict[str, Artifact] = {}
    references: dict[str, Reference] = {}
    for text in dict.fromkeys(texts):
        reference = None if Path(text).is_dir() else _reference(text)
        if reference is None:
            found[text] = open_artifact(text)
        else:
            references[text] = reference
    return found | _fetch(references, registry, trust) if references else found


def _reference(text: str) -> Reference | None:
    """None for what can only be a path; `open_artifact` says then what is wrong with it."""
    from foreword.registry.references import parse_reference

    try:
        return parse_reference(text)
    except UsageError:
        if "@" in text or text.startswith("sha256:"):  # meant as a reference
            raise
        return None


def _fetch(
    references: dict[str, Reference], directory: Path | None, trust: Path | None
) -> dict[str, Artifact]:
    from foreword.registry.registry import Registry
    from foreword.signing.store import load_policy

    now = datetime.now(UTC)
    try:
        registry = Registry.open(directory)
    except NotFound as e:
        raise _nowhere(references.values(), e) from e
    with registry:
        meant = {text: _resolve(registry, reference) for text, reference in references.items()}
        policy = load_policy(trust)
        artifacts = {
            digest: registry.fetch(digest, policy, now).artifact for digest in set(meant.values())
        }
    return {text: artifacts[digest] for text, digest in meant.items()}


def _resolve(registry: Registry, reference: Reference) -> Digest:
    try:
        return registry.resolve(reference).digest
    except NotFound as e:
        raise _nowhere([reference], e) from e


def _nowhere(references: Iterable[Reference], missing: NotFound) -> NotFound:
    """A name alone may be a path with a mistake in it."""
    from foreword.registry.references import ByName

    names = ", ".join(str(each) for each in references if isinstance(each, ByName))
    where = f"there is no directory {names[:200]}; " if names else ""
    return NotFound(f"{where}{missing}", code=missing.code)
