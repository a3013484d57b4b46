"""`foreword sign`: put a name to an artifact, or to what was found out about it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from foreword.cli.output import out
from foreword.errors import UsageError

if TYPE_CHECKING:
    from foreword.signing.statement import Finding, Verdict


def sign(
    artifact: Annotated[Path, typer.Argument(help="Artifact directory.")],
    key: Annotated[str, typer.Option(help="Name of a key in FOREWORD_HOME.")],
    attest: Annotated[
        str | None,
        typer.Option(help="Attest instead: review, evaluation, training or an own word."),
    ] = None,
    verdict: Annotated[
        Literal["pass", "fail", "insufficient"] | None, typer.Option(help="Of the attestation.")
    ] = None,
    body: Annotated[
        Path | None, typer.Option(help="JSON file with the evidence for the attestation.")
    ] = None,
    oms: Annotated[
        Path | None, typer.Option(help="Write an OpenSSF model-signing bundle here instead.")
    ] = None,
) -> None:
    """Check an artifact, sign it, and put the envelope beside it."""
    from foreword.artifact import open_artifact
    from foreword.signing.envelope import sign as sign_payload
    from foreword.signing.keys import load_key
    from foreword.signing.statement import Statement
    from foreword.signing.store import add_envelope

    finding = _finding(attest, verdict, body)
    if oms is not None:
        _export(artifact, key, oms, finding)
        return
    signer, opened = load_key(key), open_artifact(artifact)
    statement = Statement.about(opened, datetime.now(UTC), finding)
    add_envelope(artifact, sign_payload(statement.to_bytes(), signer))
    name = f"{statement.name} {statement.version} ({statement.artifact})"
    what = f"attested {finding.kind} {finding.verdict} for" if finding else "signed"
    out.print(f"{what} {name} as {key} ({signer.id})", markup=False, soft_wrap=True)


def _export(artifact: Path, key: str, bundle: Path, finding: Finding | None) -> None:
    from foreword.signing.oms import export_bundle

    if finding:
        raise UsageError("--oms signs the artifact, --attest something about it; give one of them")
    digest = export_bundle(artifact, key, bundle)
    out.print(f"bundle  {bundle}  ({digest})", markup=False, soft_wrap=True)


def _finding(kind: str | None, verdict: Verdict | None, body: Path | None) -> Finding | None:
    from foreword.signing.statement import Finding

    if (kind is None) != (verdict is None) or (body and not kind):
        raise UsageError("an attestation is --attest KIND with --verdict, and --body if you like")
    if kind is None or verdict is None:
        return None
    return Finding(kind, verdict, _evidence(body) if body else {})


def _evidence(path: Path) -> dict[str, Any]:
    """A JSON object in any spelling; what is signed is its canonical form."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as e:
        raise UsageError(f"{path} cannot be read ({e.strerror})", code="attestation.body") from e
    except (ValueError, RecursionError) as e:
        raise UsageError(
            f"{path} is not valid JSON ({str(e)[:200]})", code="attestation.body"
        ) from e
    if not isinstance(value, dict):
        raise UsageError(f"{path} should hold a JSON object", code="attestation.body")
    return value
