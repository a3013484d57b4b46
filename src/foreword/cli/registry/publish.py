"""`foreword registry publish` and `attest`: bytes come in, and what is said about them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.registry.changing import by, change
from foreword.cli.registry.options import Actor, Directory, Expect, Json, Reason, Ref, Trust
from foreword.errors import UsageError

if TYPE_CHECKING:
    from foreword.registry.entries import By, Entry
    from foreword.registry.registry import Registry
    from foreword.signing.policy import TrustPolicy


def publish(
    artifact: Annotated[Path, typer.Argument(help="Directory of a signed artifact.")],
    trust: Trust = None,
    registry: Directory = None,
    actor: Actor = None,
    reason: Reason = "",
    expect: Expect = None,
    json: Json = False,
) -> None:
    """Verify an artifact and keep it as a new version; its manifest says of which name."""
    from foreword.artifact.package import read_files
    from foreword.signing.store import load_policy, read_envelopes

    policy, who = load_policy(trust), by(actor, reason)
    manifest, tensors = read_files(artifact)
    envelopes = read_envelopes(artifact)

    def act(opened: Registry) -> Entry:
        return opened.publish(manifest, tensors, envelopes, policy=policy, by=who, expect=expect)

    change(registry, act, json=json)


def attest(
    ref: Ref,
    envelope: Annotated[
        Path,
        typer.Option(help="What `foreword sign --attest` wrote: an envelope, or one in each line."),
    ],
    trust: Trust = None,
    registry: Directory = None,
    actor: Actor = None,
    reason: Reason = "",
    expect: Expect = None,
    json: Json = False,
) -> None:
    """Add envelopes to a version: findings, or more signatures. Those it has already are skipped."""
    from foreword.signing.store import load_policy

    policy, who, said = load_policy(trust), by(actor, reason), _envelopes(envelope)
    act = partial(_attest, ref=ref, said=said, policy=policy, who=who, expect=expect)
    change(registry, act, json=json)


def _attest(
    opened: Registry,
    *,
    ref: str,
    said: tuple[bytes, ...],
    policy: TrustPolicy,
    who: By,
    expect: int | None,
) -> Entry:
    """Add what is new; the last entry, or for nothing new the one that brought the last envelope."""
    from foreword.artifact import Digest

    version = opened.resolve(ref).version
    known = {each.claim.envelope for each in version.claims}
    fresh = [data for data in said if Digest.of(data) not in known] or said[-1:]
    for data in fresh[:-1]:
        opened.attest(ref, data, policy=policy, by=who, expect=expect)
        # Our own entry moved the name on; whoever else did is still noticed.
        expect = None if expect is None else opened.state.generation(version.name)
    return opened.attest(ref, fresh[-1], policy=policy, by=who, expect=expect)


def _envelopes(file: Path) -> tuple[bytes, ...]:
    from foreword.signing import files
    from foreword.signing.envelope import MAX_BYTES
    from foreword.signing.verify import MAX_ENVELOPES

    lines = files.read(file, MAX_ENVELOPES * (MAX_BYTES + 1)).removesuffix(b"\n").split(b"\n")
    if lines == [b""]:
        raise UsageError(f"{file} is empty; expected an envelope in each line")
    return tuple(lines)
