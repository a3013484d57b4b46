"""`foreword golden`: look at golden sets, split them, and add rows from logs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli.output import errors, out, print_json, visible
from foreword.errors import DataError, StorageError

if TYPE_CHECKING:
    from foreword.evaluation.golden import GoldenSet, Problem

app = typer.Typer(
    help="Golden sets: rows with what is known about right answers.", no_args_is_help=True
)
File = Annotated[Path, typer.Argument(metavar="SET", help="JSONL file of a golden set.")]
Out = Annotated[Path, typer.Option("--out", help="File to write; it must not exist.")]


@app.command()
def validate(
    file: File, json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Check every line of a set; the exit code is 0 only if all are good."""
    from foreword.evaluation.golden import inspect_golden

    golden, problems = inspect_golden(file)
    if json:
        print_json({**(_facts(golden) if golden and not problems else {}),
                    "problems": [vars(each) for each in problems]})  # fmt: skip
    else:
        _say_problems(problems)
    if golden is None or problems:
        raise DataError(
            f"{len(problems)} line{'s' if len(problems) != 1 else ''} of {file} cannot be used",
            code="golden.bad_rows",
        )
    if not json:
        _say(golden)


@app.command()
def split(
    file: File,
    held: Annotated[Path, typer.Option(help="File for the held-out part; it must not exist.")],
    rest: Annotated[Path, typer.Option(help="File for the rest; it must not exist.")],
    share: Annotated[float, typer.Option(help="Held-out part of every cohort.")] = 0.2,
    salt: Annotated[str, typer.Option(help="Another text gives another split.")] = "",
) -> None:
    """Split a set so that a row stays on its side however the set grows."""
    from foreword.evaluation.golden import read_golden, write_golden
    from foreword.evaluation.golden import split as cut

    _require_free(held, rest)
    sides = cut(read_golden(file), share, salt)
    for side, path in zip(sides, (held, rest), strict=True):
        write_golden(side, path)
        out.print(f"{len(side.rows)} rows of {side.label} written to {path}", soft_wrap=True)


@app.command("add-from-logs")
def add_from_logs(
    file: File,
    log: Annotated[Path, typer.Option(help="JSONL of requests and feedback (docs/evaluation.md).")],
    version: Annotated[str, typer.Option(help="Version of the set with the new rows.")],
    out_: Out,
) -> None:
    """Add a draft row for each new request of a log; look at the rows tagged `draft` afterwards."""
    from foreword.artifact.manifest import check_version
    from foreword.evaluation.golden import add_from_logs as add
    from foreword.evaluation.golden import read_golden, write_golden

    _require_free(out_)
    check_version(version)
    drafts = add(read_golden(file), log, version)
    _say_problems(drafts.problems)
    write_golden(drafts.golden, out_)
    out.print(
        f"{drafts.added} draft rows added, {drafts.duplicates} asked before, {len(drafts.problems)} "
        f"lines left out; {drafts.golden.label} written to {out_}",
        soft_wrap=True,
    )


def _require_free(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise StorageError(
                f"{path} exists already; choose another file, or move it away",
                code="storage.exists",
            )


def _facts(golden: GoldenSet) -> dict[str, Any]:
    rows = golden.rows
    return {
        "name": golden.header.name,
        "version": golden.header.version,
        "specialty": golden.header.specialty,
        "digest": str(golden.digest),
        "rows": len(rows),
        "cohorts": dict(Counter(row.cohort for row in rows)),
        "languages": dict(Counter(row.language for row in rows)),
        "tags": dict(Counter(tag for row in rows for tag in row.tags)),
        "checks": dict(Counter(check.kind for row in rows for check in row.checks)),
        "references": sum(bool(row.references) for row in rows),
        "functions": sorted(golden.functions()),
    }


def _say(golden: GoldenSet) -> None:
    facts = _facts(golden)
    out.print(f"set        {golden.label}, for {golden.header.specialty}", markup=False)
    out.print(f"digest     {golden.digest}", soft_wrap=True)
    out.print(f"rows       {len(golden.rows)}, {facts['references']} with references")
    for word in ("cohorts", "languages", "tags", "checks"):
        counts = ", ".join(f"{name} {count}" for name, count in sorted(facts[word].items()))
        out.print(f"{word:<10} {visible(counts) or 'none'}", markup=False, soft_wrap=True)
    if facts["functions"]:
        out.print(f"functions  {', '.join(facts['functions'])}", markup=False, soft_wrap=True)


def _say_problems(problems: tuple[Problem, ...]) -> None:
    for each in problems:
        errors.print(visible(str(each)), markup=False, soft_wrap=True)
