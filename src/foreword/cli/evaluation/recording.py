"""A verdict, signed: into the registry for what came from there, else beside the artifact's files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from foreword.cli.evaluation.sides import Places
from foreword.cli.output import errors, visible

if TYPE_CHECKING:
    from foreword.artifact import Artifact
    from foreword.evaluation.gates.verdict import Verdict
    from foreword.signing.envelope import Envelope


def record(verdict: Verdict, artifact: Artifact, side: str, key: str, places: Places) -> None:
    """Attest a verdict with one of this machine's keys.

    Raises:
        UsageError: there is no such key, or the verdict is about something else.
        TrustError: the policy does not let this key speak of evaluations.
        RegistryError, StorageError: it could not be kept.
    """
    from foreword.evaluation.gates.attest import attest
    from foreword.signing.keys import load_key

    put(attest(verdict, artifact, load_key(key), datetime.now(UTC)), artifact, side, places)


def put(envelope: Envelope, artifact: Artifact, side: str, places: Places) -> None:
    """Keep an envelope where the artifact came from."""
    from foreword.cli.registry.changing import by
    from foreword.registry.references import ByDigest
    from foreword.registry.registry import Registry
    from foreword.signing.store import add_envelope, load_policy

    what = f"{artifact.manifest.name} {artifact.manifest.version}"
    if Path(side).is_dir():
        add_envelope(side, envelope)
        errors.print(f"attested beside {visible(side)}", markup=False, soft_wrap=True)
        return
    policy = load_policy(places.trust)
    with Registry.open(places.registry) as registry:
        entry = registry.attest(
            ByDigest(artifact.digest), envelope.to_bytes(), policy=policy, by=by(None)
        )
    errors.print(f"attested {what}: entry {entry.seq}", markup=False, soft_wrap=True)
