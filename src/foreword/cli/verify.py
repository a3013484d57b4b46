"""`foreword verify`: does somebody we trust vouch for this artifact?"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli.output import out, print_json

if TYPE_CHECKING:
    from foreword.signing.policy import TrustPolicy
    from foreword.signing.verify import VerifiedArtifact


def verify(
    artifact: Annotated[Path, typer.Argument(help="Artifact directory.")],
    trust: Annotated[
        Path | None, typer.Option(help="Trust policy, by default trust.toml in FOREWORD_HOME.")
    ] = None,
    oms: Annotated[
        Path | None, typer.Option(help="Judge this OpenSSF model-signing bundle instead.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge an artifact by the trust policy; the exit code is 0 only if it is verified."""
    from foreword.signing.store import load_policy, open_verified

    policy, now = load_policy(trust), datetime.now(UTC)
    if oms is None:
        facts = _facts(open_verified(artifact, policy, now), policy)
    else:
        facts = _bundle_facts(artifact, oms, policy, now)
    if json:
        print_json(facts)
        return
    lines = [f"verified  {facts['name']} {facts['version']}  ({facts['digest']})"]
    lines += [f"signed    {signer['name']} ({signer['id']})" for signer in facts["signers"]]
    for each in facts["attestations"]:
        who = f"{each['key']['name']} ({each['key']['id']})"
        lines.append(f"attested  {each['kind']} {each['verdict']}, {who}, {each['signed']}")
    out.print("\n".join(lines), markup=False, soft_wrap=True)


def _facts(verified: VerifiedArtifact, policy: TrustPolicy) -> dict[str, Any]:
    from foreword.signing.times import stamp

    manifest = verified.artifact.manifest
    return {
        "digest": str(verified.digest),
        "name": manifest.name,
        "version": manifest.version,
        "signers": [_key(key_id, policy) for key_id in verified.signers],
        "attestations": [
            {
                "kind": each.finding.kind,
                "verdict": each.finding.verdict,
                "key": _key(each.key_id, policy),
                "signed": stamp(each.signed),
                "body": each.finding.body,
            }
            for each in verified.attestations
        ],
    }


def _bundle_facts(
    artifact: Path, bundle: Path, policy: TrustPolicy, now: datetime
) -> dict[str, Any]:
    from foreword.signing.oms import open_bundle

    opened, key_id = open_bundle(artifact, bundle, policy, now)
    return {
        "digest": str(opened.digest),
        "name": opened.manifest.name,
        "version": opened.manifest.version,
        "signers": [_key(key_id, policy)],
        "attestations": [],
    }


def _key(key_id: str, policy: TrustPolicy) -> dict[str, str]:
    return {"id": key_id, "name": policy.keys[key_id].name}
