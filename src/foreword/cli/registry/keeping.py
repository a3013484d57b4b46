"""`foreword registry retention` and `gc`: what may go, and the room it took. Both only look at first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.output import print_json
from foreword.cli.registry.changing import by
from foreword.cli.registry.lines import line, numbered, table
from foreword.cli.registry.options import Actor, Directory, Json, Reason

if TYPE_CHECKING:
    from foreword.registry.gc import Collection
    from foreword.registry.retention import Applied, Plan

Apply = Annotated[bool, typer.Option("--apply", help="Do it. Without this nothing is changed.")]


def retention(
    prefix: Annotated[
        str, typer.Argument(metavar="[PREFIX]", help="What names begin with, such as acme/.")
    ] = "",
    keep: Annotated[int, typer.Option(min=0, help="Newest versions of each name that stay.")] = 10,
    older_than: Annotated[
        int, typer.Option(min=0, max=100_000, help="Days for which every version stays.")
    ] = 90,
    rollbacks: Annotated[
        int, typer.Option(min=0, help="Versions to roll back to that stay, of each name.")
    ] = 3,
    apply: Apply = False,
    registry: Directory = None,
    actor: Actor = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Say which versions may go and why the others stay; with --apply retire those that may."""
    from foreword.registry import retention as rules
    from foreword.registry.registry import Registry

    who = by(actor, reason)
    wanted = rules.Rules(keep, timedelta(days=older_than), rollbacks)
    with Registry.open(registry) as opened:
        plan = rules.plan(opened.refresh(), wanted, who.now, prefix)
        done = rules.apply(opened, plan, who) if apply else ()
    if json:
        print_json(
            {
                "applied": apply,
                "versions": [fate.to_json() for fate in plan.fates],
                "retired": [each.to_json() for each in done],
            }
        )
    elif apply:
        _tell_retired(done)
    else:
        _tell_plan(plan)


def gc(
    grace: Annotated[
        int, typer.Option(min=1, max=100_000, help="Hours for which a blob stays, needed or not.")
    ] = 24,
    apply: Apply = False,
    registry: Directory = None,
    json: Json = False,
) -> None:
    """Say which blobs no version needs; with --apply take them away, in two runs a grace apart."""
    from foreword.registry.gc import gc as collect
    from foreword.registry.registry import Registry

    with Registry.open(registry) as opened:
        found = collect(opened, datetime.now(UTC), grace=timedelta(hours=grace), apply=apply)
    if json:
        print_json(found.to_json())
    else:
        _tell_collection(found)


def _tell_plan(plan: Plan) -> None:
    if plan.fates:
        table(
            ("version", "", "because"),
            [(f"{fate.name} {fate.version}", "goes" if fate.goes else "stays", fate.reason)
             for fate in plan.fates],
        )  # fmt: skip
    going = len(plan.going)
    line("dry run", f"{numbered(going, 'version')} of {len(plan.fates)} may go")
    if going:
        line("next", "the same command with --apply retires them")


def _tell_retired(done: tuple[Applied, ...]) -> None:
    for each in done:
        version = f"{each.fate.name} {each.fate.version}"
        if each.refusal is None:
            line(f"entry {each.entry}", f"retired {version}: {each.fate.reason}")
        else:
            line("stays", f"{version}: {each.refusal}")
    retired = sum(each.refusal is None for each in done)
    line("retired", numbered(retired, "version"))
    if retired:
        line("next", "foreword registry gc reclaims what only they needed")


def _tell_collection(found: Collection) -> None:
    size = sum(blob.size for blob in found.condemned)
    may = "" if found.applied else "may be "
    gone = f"{numbered(len(found.destroyed), 'blob')} {may}destroyed, {found.freed:,} bytes"
    line("condemned", f"{numbered(len(found.condemned), 'blob')} {may}set aside, {size:,} bytes")
    line("destroyed", gone)
    if found.brought_back:
        line("back", f"{numbered(len(found.brought_back), 'blob')} {may}brought back")
    if found.drafts:
        line("drafts", f"{numbered(found.drafts, 'unfinished write')} removed")
    if not found.applied and (found.condemned or found.destroyed or found.brought_back):
        line("next", "foreword registry gc --apply")
    elif found.applied and found.condemned:
        line("next", "a later run destroys what was set aside, when the grace has passed")
