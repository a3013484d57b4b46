"""`foreword registry approve`, `release`, `shift` and `rollback`: what a name gives."""

from __future__ import annotations

from typing import Annotated

import typer

from foreword.cli.registry.changing import by, change
from foreword.cli.registry.options import (
    Actor,
    Directory,
    Expect,
    Json,
    Name,
    Reason,
    Ref,
    Trust,
)


def approve(
    ref: Ref,
    registry: Directory = None,
    actor: Actor = None,
    reason: Reason = "",
    expect: Expect = None,
    json: Json = False,
) -> None:
    """Agree that a version is released."""
    who = by(actor, reason)
    change(registry, lambda opened: opened.approve(ref, by=who, expect=expect), json=json)


def release(
    ref: Ref,
    share: Annotated[
        float, typer.Option(help="Part of the keys; below 1 the version is the canary.")
    ] = 1.0,
    trust: Trust = None,
    registry: Directory = None,
    actor: Actor = None,
    reason: Reason = "",
    expect: Expect = None,
    json: Json = False,
) -> None:
    """Make a version stable, or the canary, after its bytes have been verified again."""
    from foreword.signing.store import load_policy

    policy, who = load_policy(trust), by(actor, reason)
    change(
        registry,
        lambda opened: opened.release(ref, share, policy=policy, by=who, expect=expect),
        json=json,
    )


def shift(
    name: Name,
    share: Annotated[float, typer.Option(help="Part of the keys; 1 makes the canary stable.")],
    trust: Trust = None,
    registry: Directory = None,
    actor: Actor = None,
    reason: Reason = "",
    expect: Expect = None,
    json: Json = False,
) -> None:
    """Give the canary another share of the keys."""
    from foreword.signing.store import load_policy

    policy, who = load_policy(trust), by(actor, reason)
    change(
        registry,
        lambda opened: opened.shift(name, share, policy=policy, by=who, expect=expect),
        json=json,
    )


def rollback(
    name: Name,
    to: Annotated[
        str | None, typer.Option(metavar="REF", help="A version that was stable before.")
    ] = None,
    registry: Directory = None,
    actor: Actor = None,
    reason: Reason = "",
    expect: Expect = None,
    json: Json = False,
) -> None:
    """Take the canary back, or else what is stable. Needs neither blobs nor keys."""
    who = by(actor, reason)
    change(registry, lambda opened: opened.rollback(name, to=to, by=who, expect=expect), json=json)
