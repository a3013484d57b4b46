"""`foreword registry fsck`: everything that contradicts itself, and how to mend it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.output import errors, print_json
from foreword.cli.registry.lines import line, numbered
from foreword.cli.registry.options import Directory, Json, Trust
from foreword.errors import ArtifactError, RegistryError, TrustError, UsageError

if TYPE_CHECKING:
    from foreword.registry.entries import Head
    from foreword.registry.fsck import Report
    from foreword.signing.policy import TrustPolicy


def fsck(
    trust: Trust = None,
    known: Annotated[
        str | None,
        typer.Option(
            metavar="SEQ:HASH",
            help="An entry that was written down elsewhere, such as the head that an export prints.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the blobs.")] = False,
    registry: Directory = None,
    json: Json = False,
) -> None:
    """Look for every inconsistency and change nothing; the exit code is 0 only if nothing is broken."""
    from foreword.registry.fsck import fsck as look
    from foreword.registry.layout import Layout

    layout, policy, head = Layout.load(registry), _policy(trust), _head(known)
    report = look(layout, datetime.now(UTC), policy=policy, known=head, deep=not quick)
    if json:
        print_json(report.to_json())
    else:
        _tell(report)
    broken = sum(finding.severity == "broken" for finding in report.findings)
    if broken:
        raise RegistryError(
            f"{numbered(broken, 'thing')} in this registry {'is' if broken == 1 else 'are'} broken; "
            "mend the first and look again",
            code="registry.broken",
        )


def _policy(trust: Path | None) -> TrustPolicy | None:
    """A registry can be looked at where nobody keeps a policy; then signatures are not judged."""
    from foreword.signing.store import load_policy

    try:
        return load_policy(trust)
    except TrustError as e:
        if trust or e.code != "trust.policy_missing":
            raise
        errors.print("there is no trust policy here, so nothing is verified by one")
        return None


def _head(text: str | None) -> Head | None:
    from foreword.artifact import Digest
    from foreword.registry.entries import Head

    if text is None:
        return None
    seq, _, digest = text.partition(":")
    try:
        return Head(int(seq), Digest.parse(digest))
    except (ValueError, ArtifactError) as e:
        raise UsageError(
            f"expected --known as SEQ:sha256:<64 hex digits>, got {text[:100]!r}"
        ) from e


def _tell(report: Report) -> None:
    for finding in report.findings:
        line(finding.severity, f"{finding.code} {finding.where}: {finding.what}")
        line("mend", finding.mend)
    entries = numbered(report.entries, "entry", "entries")
    versions, blobs = numbered(report.versions, "version"), numbered(report.blobs, "blob")
    line("looked at", f"{entries}, {versions}, {blobs} ({report.size:,} bytes)")
    line("result", "sound" if report.is_sound else "broken")
