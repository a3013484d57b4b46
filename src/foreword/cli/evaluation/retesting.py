"""`foreword evaluate --all-released`: everything that serves, judged again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from foreword.cli.evaluation.options import Format
from foreword.cli.evaluation.sides import Places
from foreword.errors import UsageError

if TYPE_CHECKING:
    from foreword.artifact import Artifact
    from foreword.evaluation.gates.retested import Released, RetestReport
    from foreword.evaluation.runs.decoding import Decoding


@dataclass(frozen=True)
class Wanted:
    base: str
    prefix: str
    policy: Path
    sign: str | None
    allowed: tuple[str, ...]


def retest(
    wanted: Wanted,
    golden: Sequence[Path],
    decoding: Decoding,
    places: Places,
    answers: Path | None,
    shown: Format,
    out: Path | None,
) -> None:
    """Judge, print the report, attest if asked, and end with the exit code of the worst."""
    from foreword.cli.evaluation.delivering import write_files
    from foreword.cli.evaluation.running import load, opened_store, progress_line, read_sets
    from foreword.cli.output import write
    from foreword.evaluation.gates.policy import load_policy
    from foreword.evaluation.gates.retest import retest as judge

    if shown == "html":
        raise UsageError("the report is md or json", code="evaluation.format")
    policy, sets = load_policy(wanted.policy), read_sets(golden)
    versions = _released(wanted.prefix, places)
    base = load(wanted.base)
    with opened_store(answers) as store, progress_line() as tell:
        report = judge(
            versions, sets, base, policy, decoding, store, datetime.now(UTC),
            allowed=wanted.allowed, progress=tell,
        )  # fmt: skip
    if out is not None:
        write_files(out, {"retest.json": report.to_json(), "retest.md": report.to_markdown()})
    write(report.to_json() if shown == "json" else report.to_markdown())
    if wanted.sign is not None:
        _attest(report, versions, wanted.sign, places)
    raise typer.Exit(report.exit_code)


def _released(prefix: str, places: Places) -> dict[Released, Artifact]:
    from foreword.cli.evaluation.sides import fetch
    from foreword.evaluation.gates.retested import released
    from foreword.registry.registry import Registry

    with Registry.open(places.registry) as registry:
        found = released(registry.refresh(), prefix)
    if not found:
        raise UsageError(
            f"nothing is released under names that begin with {prefix!r}", code="evaluation.nothing"
        )
    return {each: fetch(str(each.digest), places) for each in found}


def _attest(
    report: RetestReport, versions: dict[Released, Artifact], key: str, places: Places
) -> None:
    """What was shown, good or bad. Not enough evidence takes back no word that was given with enough."""
    from foreword.cli.evaluation.recording import record

    for each in report.results:
        if each.verdict is not None and each.fate in ("survives", "fails"):
            record(each.verdict, versions[each.released], str(each.released.digest), key, places)
