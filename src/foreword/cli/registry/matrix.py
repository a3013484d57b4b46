"""`foreword registry matrix`: which prefixes fit which bases, and what another base would break."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli.output import out, print_json
from foreword.cli.registry.bases import identified
from foreword.cli.registry.lines import line, numbered, table
from foreword.cli.registry.options import Directory, Json
from foreword.errors import UsageError

if TYPE_CHECKING:
    from foreword.registry.compatibility import Breakage, Matrix, Misfit
    from foreword.registry.facts import Base
    from foreword.registry.state import State


def matrix(
    prefix: Annotated[
        str, typer.Argument(metavar="[PREFIX]", help="What names begin with, such as acme/.")
    ] = "",
    against: Annotated[
        str | None, typer.Option(metavar="BASE", help="A model that is to replace a base.")
    ] = None,
    replaces: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The base it replaces, if more than one is declared."),
    ] = None,
    registry: Directory = None,
    json: Json = False,
) -> None:
    """Show which versions fit which bases; with --against, what an upgrade of a base would break."""
    from foreword.registry.compatibility import matrix as compare
    from foreword.registry.compatibility import what_breaks
    from foreword.registry.registry import Registry

    with Registry.open(registry) as opened:
        state = opened.refresh()
    if against is None:
        _give(compare(state, prefix), json)
        return
    current = _current(state, against, replaces)
    upgrade = identified(against)
    broken = [
        each
        for each in what_breaks(state, current, upgrade)
        if each.version.name.startswith(prefix)
    ]
    if json:
        print_json(
            {"replaces": current.id, "by": upgrade.id, "breaks": [_breakage(e) for e in broken]}
        )
    else:
        _tell_broken(broken, current, against)


def _give(found: Matrix, json: bool) -> None:
    if json:
        print_json(_matrix_json(found))
    else:
        _tell(found)


def _current(state: State, against: str, replaces: str | None) -> Base:
    """The base that would go: the one that is named, or called the same, or the only one."""
    by_id = {base.id: base for base in state.bases}
    wanted = replaces or (against if against in by_id else None)
    if wanted is None and len(by_id) == 1:
        return state.bases[0]
    if wanted not in by_id:
        there = ", ".join(by_id) or "none; `foreword registry declare-base` adds one"
        raise UsageError(
            f"expected --replaces with a base that is declared, got {(wanted or 'nothing')[:80]!r}; "
            f"there are {there}",
            code="registry.base_unknown",
        )
    return by_id[wanted]


def _tell(found: Matrix) -> None:
    if not found.rows:
        out.print("no live versions here; `foreword registry publish ARTIFACT` adds one")
        return
    if not found.bases:
        out.print("no bases are declared; `foreword registry declare-base BASE` adds one")
    table(
        ("version", *(base.id for base in found.bases)),
        [(str(row.version), *(each.code if each else "fits" for each in row.misfits))
         for row in found.rows],
    )  # fmt: skip


def _tell_broken(broken: list[Breakage], current: Base, against: str) -> None:
    line(numbered(len(broken), "version"), f"would not fit {against} in the place of {current.id}")
    for each in broken:
        line("serving" if each.serving else "kept", each.misfit.reason)


def _matrix_json(found: Matrix) -> dict[str, Any]:
    return {
        "bases": [
            {"id": base.id, "fingerprint": str(base.ref.fingerprint)} for base in found.bases
        ],
        "versions": [
            {
                "name": row.version.name,
                "version": row.version.version,
                "digest": str(row.version.digest),
                "fits": {
                    base.id: _misfit(each)
                    for base, each in zip(found.bases, row.misfits, strict=True)
                },
            }
            for row in found.rows
        ],
    }


def _breakage(each: Breakage) -> dict[str, Any]:
    return {
        "name": each.version.name,
        "version": each.version.version,
        "digest": str(each.version.digest),
        "serving": each.serving,
        "misfit": _misfit(each.misfit),
    }


def _misfit(misfit: Misfit | None) -> dict[str, str] | None:
    """None where it fits."""
    return {"code": misfit.code, "reason": misfit.reason} if misfit else None
