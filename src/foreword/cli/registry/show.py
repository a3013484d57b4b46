"""`foreword registry show`: all that holds for a name, or for one version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreword.cli.output import print_json
from foreword.cli.registry.lines import line, numbered, table
from foreword.cli.registry.options import Directory, Json, Ref

if TYPE_CHECKING:
    from foreword.registry.state import NameState, State, Version


def show(ref: Ref, registry: Directory = None, json: Json = False) -> None:
    """Show all that holds for a name, or for one version of it."""
    from foreword.cli.registry.shown import name_json, version_json
    from foreword.registry.references import ByName, parse_reference
    from foreword.registry.registry import Registry

    reference = parse_reference(ref)
    with Registry.open(registry) as opened:
        state = opened.refresh()
    if isinstance(reference, ByName):
        known = state.name(reference.name)
        value, tell = name_json(known, state), lambda: _tell_name(known, state)
    else:
        version = state.find(reference)
        value, tell = version_json(version, state), lambda: _tell_version(version, state)
    if json:
        print_json(value)
    else:
        tell()


def _tell_name(known: NameState, state: State) -> None:
    from foreword.cli.registry.told import release_cells

    stable, canary = release_cells(known.release, state)
    line("name", f"{known.name}, generation {known.generation}")
    line("stable", stable)
    line("canary", canary)
    for word, alias in sorted(known.aliases.items()):
        if alias.digest:
            line("alias", f"{word} is {state.versions[alias.digest].version}")
    versions = [state.versions[digest] for digest in reversed(known.versions)]
    table(
        ("version", "digest", "status", "published", "by", "vouched for by"),
        [
            (
                version.version,
                version.digest.short,
                version.status,
                version.published.time,
                version.published.actor,
                _vouched(version),
            )
            for version in versions
        ],
    )


def _vouched(version: Version) -> str:
    """`2 signatures, review pass`."""
    signers = {
        key for each in version.claims if not each.claim.verdict for key in each.claim.signers
    }
    findings = [f"{c.claim.kind} {c.claim.verdict}" for c in version.claims if c.claim.verdict]
    return ", ".join([numbered(len(signers), "signature"), *findings])


def _tell_version(version: Version, state: State) -> None:
    from foreword.cli.registry import told

    facts = version.facts
    sites = ", ".join(
        f"{site} {len(layers)} layers" for site, layers in facts.geometry.sites.items()
    )
    line("version", f"{version}, {version.status}, generation {state.generation(version.name)}")
    line("digest", str(version.digest))
    line("base", f"{facts.base.id} ({facts.base.architecture}, {facts.base.fingerprint})")
    line("prefix", f"{facts.length} virtual tokens on {sites}, {facts.dtype}")
    line("size", f"{facts.tensors.size:,} bytes of tensors")
    line(
        "trained", f"data {facts.lineage.data or 'not said'}, parent {facts.lineage.parent or '-'}"
    )
    line("published", told.mark(version.published))
    for each in version.claims:
        line("vouched", f"{told.claim(each.claim)} (entry {each.mark.seq})")
    for mark in version.approvals:
        line("approved", told.mark(mark))
    for drift in version.drifts:
        line("drifted", f"{told.drift(drift.event)}, {told.mark(drift.mark)}")
    if version.ended:
        line(version.status, told.mark(version.ended))
