"""`foreword registry log` and `why`: what changed, when, by whom, and on which evidence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.output import out, print_json
from foreword.cli.registry.lines import line, table
from foreword.cli.registry.options import Directory, Json, Name

if TYPE_CHECKING:
    from foreword.registry.entries import Entry
    from foreword.registry.lineage import Reason, Turn
    from foreword.registry.state import State


def log(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="tenant/prefix, else everything.")
    ] = None,
    after: Annotated[int, typer.Option(min=0, metavar="SEQ", help="Begin behind this entry.")] = 0,
    registry: Directory = None,
    json: Json = False,
) -> None:
    """Show the entries of the journal, oldest first."""
    from foreword.cli.registry.shown import entry_json
    from foreword.registry.registry import Registry

    with Registry.open(registry) as opened:
        if name is not None:
            opened.show(name)  # a name with a mistake in it is no empty history
        entries = list(opened.log(name, after))
        state = opened.refresh()  # after the entries, so it knows all that they speak of
    if json:
        print_json([entry_json(entry) for entry in entries])
    elif entries:
        _tell_entries(entries, state)
    else:
        out.print("no entries")


def why(name: Name, registry: Directory = None, json: Json = False) -> None:
    """Show why a name gives what it gives now: since when, by whom, on which evidence."""
    from foreword.registry.lineage import why as ask
    from foreword.registry.registry import Registry

    with Registry.open(registry) as opened:
        answer = ask(opened, name)
        state = opened.state
    if json:
        print_json(answer.to_json())
        return
    for reason in answer.reasons:
        _tell_reason(reason, state)
    if not answer.reasons:
        line("released", f"nothing under {name}")
    if answer.last and answer.last not in [reason.since for reason in answer.reasons]:
        line("last", _turn(answer.last, state))


def _tell_entries(entries: Iterable[Entry], state: State) -> None:
    from foreword.cli.registry.told import happened

    table(
        ("entry", "time", "by", "what", "why"),
        [
            (str(entry.seq), entry.time, entry.actor, happened(entry.event, state), entry.reason)
            for entry in entries
        ],
    )


def _tell_reason(reason: Reason, state: State) -> None:
    from foreword.cli.registry import told

    version, facts = reason.version, reason.version.facts
    line(reason.arm, f"{version} ({version.digest}), {told.percent(reason.share)} of the keys")
    line("since", _turn(reason.since, state))
    line("published", told.mark(version.published))
    for known in reason.evidence:
        line("evidence", f"{told.claim(known.claim)} (entry {known.mark.seq})")
    for seen in reason.drifts:
        line("drifted", f"{told.drift(seen.event)} (entry {seen.mark.seq})")
    for approval in version.approvals:
        line("approved", told.mark(approval))
    line("base", f"{facts.base.id} ({facts.base.fingerprint})")
    made = reason.made_from
    line("trained", f"data {made.data or 'not said'}, Foreword {made.code or 'not said'}")
    for ancestor in reason.ancestors:
        parent = ancestor.version or "never published here"
        line("parent", f"{parent} ({ancestor.digest})")


def _turn(turn: Turn, state: State) -> str:
    from foreword.cli.registry.told import mark, percent

    if turn.after is None:
        gives = "nothing"
    else:
        gives = state.version(turn.after.stable).version
        if turn.after.canary:
            canary = state.version(turn.after.canary).version
            gives += f" and {canary} for {percent(turn.after.share)} of the keys"
    return f"{mark(turn.mark)} [{turn.kind.replace('_', ' ')}: the name gives {gives}]"
