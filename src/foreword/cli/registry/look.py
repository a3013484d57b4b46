"""`foreword registry list` and `resolve`: what is there, and what a reference means now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreword.cli.output import errors, out, print_json, visible
from foreword.cli.registry.lines import table
from foreword.cli.registry.options import Directory, Json, Ref

if TYPE_CHECKING:
    from foreword.registry.registry import Page, Resolved
    from foreword.registry.state import State


def list_(
    prefix: Annotated[
        str, typer.Argument(metavar="[PREFIX]", help="What names begin with, such as acme/.")
    ] = "",
    after: Annotated[
        str | None, typer.Option(metavar="NAME", help="Begin behind this name.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Most names to show.")] = 100,
    registry: Directory = None,
    json: Json = False,
) -> None:
    """List names with what they give, in alphabetical order, a page at a time."""
    from foreword.cli.registry.shown import page_json
    from foreword.registry.registry import Registry

    with Registry.open(registry) as opened:
        page = opened.list(prefix, after, limit)
        state = opened.state
    if json:
        print_json(page_json(page, state))
    else:
        _tell_page(page, state)


def resolve(
    ref: Ref,
    key: Annotated[
        str | None,
        typer.Option(help="Whoever asks, such as a user: says which arm this key gets."),
    ] = None,
    registry: Directory = None,
    json: Json = False,
) -> None:
    """Print the digest that a reference means now."""
    from foreword.registry.registry import Registry

    with Registry.open(registry) as opened:
        found = opened.resolve(ref)
        value = _resolved(ref, found, key, opened.state)
    if json:
        print_json(value)
        return
    out.print(value["digest"], soft_wrap=True)
    arm = f", {value['arm']}" if value["arm"] else ""
    errors.print(f"{value['name']} {value['version']}{arm}", markup=False, soft_wrap=True)


def _resolved(ref: str, found: Resolved, key: str | None, state: State) -> dict[str, Any]:
    """A name alone gives an arm of its release; any other reference gives what it names."""
    digest, arm = found.digest, None
    if found.release:
        pick = found.release.pick(key) if key is not None else None
        digest, arm = (pick.digest, pick.arm) if pick else (digest, "stable")
    version = state.version(digest)
    return {
        "reference": ref,
        "name": version.name,
        "version": version.version,
        "digest": str(digest),
        "arm": arm,
    }


def _tell_page(page: Page, state: State) -> None:
    if not page.names:
        out.print("nothing here; `foreword registry publish ARTIFACT` adds a version")
        return
    from foreword.cli.registry.told import release_cells

    rows = [
        (
            known.name,
            *release_cells(known.release, state),
            state.versions[known.versions[-1]].version,
            str(len(known.versions)),
        )
        for known in page.names
    ]
    table(("name", "stable", "canary", "newest", "versions"), rows)
    if page.after:
        errors.print(f"more with --after {visible(page.after)}", markup=False, soft_wrap=True)
