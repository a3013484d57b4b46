"""From an artifact to a prefix that may be used with this base, or a reason why not."""

from __future__ import annotations

from dataclasses import dataclass

from foreword.artifact import Artifact, Digest, Manifest, PromptFormat
from foreword.errors import CompatibilityError
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import PrefixKV
from foreword.prefix.probe import check_probes


@dataclass(frozen=True)
class LoadedPrefix:
    """A prefix that was compared with its base and proved to behave."""

    name: str
    version: str
    digest: Digest
    kv: PrefixKV
    prompt: PromptFormat


def load_prefix(base: BaseModel, artifact: Artifact) -> LoadedPrefix:
    """Compare every fact in the manifest with the base, then run the probe.

    Raises:
        CompatibilityError: other weights, another tokenizer, another geometry, too long, or a probe
            that does not come out; the message names both sides.
    """
    manifest = artifact.manifest
    require_fit(base, manifest)
    kv = PrefixKV.from_artifact(artifact).to(device=base.device)
    check_probes(base, kv, manifest.probes)
    return LoadedPrefix(manifest.name, manifest.version, artifact.digest, kv, manifest.prompt)


def require_fit(base: BaseModel, manifest: Manifest) -> None:
    """Compare every fact in a manifest with the base; no tensor is looked at, no model is run.

    Raises:
        CompatibilityError: as `load_prefix`, but for the probe.
    """
    made_for = manifest.base
    if made_for.fingerprint != base.ref.fingerprint:
        raise CompatibilityError(
            f"{manifest.name} {manifest.version} was made for {made_for.id[:80]!r} "
            f"({made_for.fingerprint.short}), this base is {base.ref.id} "
            f"({base.ref.fingerprint.short}): other weights or configuration; load the base it was "
            "made for, or train it again on this one",
            code="base.fingerprint",
        )
    if base.ref.tokenizer is not None and made_for.tokenizer != base.ref.tokenizer:
        raise CompatibilityError(
            f"{manifest.name} was made with another tokenizer or chat template than {base.ref.id} "
            "has now; restore the base's tokenizer files",
            code="base.tokenizer",
        )
    if not base.geometry.covers(manifest.geometry):
        raise CompatibilityError(
            f"{manifest.name} attaches to layers or shapes that {base.ref.id} does not have",
            code="base.geometry",
        )
    if base.context is not None and manifest.length >= base.context:
        raise CompatibilityError(
            f"{manifest.name} has {manifest.length} virtual tokens, the context of {base.ref.id} is "
            f"{base.context}; no room is left for a prompt",
            code="base.context",
        )
