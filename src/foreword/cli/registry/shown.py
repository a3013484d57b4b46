"""What the registry knows, as JSON values. Their keys are documented in docs/registry.md and stay."""

from __future__ import annotations

from typing import Any

from foreword.artifact import Digest
from foreword.registry.entries import Entry
from foreword.registry.facts import claim_to_json, facts_to_json
from foreword.registry.registry import Page
from foreword.registry.releases import Release
from foreword.registry.state import Mark, NameState, State, Version


def entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "time": entry.time,
        "actor": entry.actor,
        "reason": entry.reason,
        "kind": entry.kind,
        "name": entry.event.name,
        "event": entry.event.to_json(),
        "hash": str(entry.hash),
    }


def change_json(entry: Entry, state: State, new: bool) -> dict[str, Any]:
    """What a change gives: its entry, and where the name stands now."""
    return {
        "new": new,
        "entry": entry_json(entry),
        "generation": state.generation(entry.event.name),
    }


def version_json(version: Version, state: State) -> dict[str, Any]:
    return {
        **facts_to_json(version.facts),
        "status": version.status,
        "published": mark_json(version.published),
        "ended": mark_json(version.ended) if version.ended else None,
        "claims": [
            {**claim_to_json(each.claim), "added": mark_json(each.mark)} for each in version.claims
        ],
        "approvals": [mark_json(mark) for mark in version.approvals],
        "drifts": [
            {**each.event.to_json(), "added": mark_json(each.mark)} for each in version.drifts
        ],
        "generation": state.generation(version.name),
    }


def name_json(known: NameState, state: State) -> dict[str, Any]:
    return {
        "name": known.name,
        "generation": known.generation,
        "release": release_json(known.release, state),
        "aliases": {
            word: short_json(alias.digest, state)
            for word, alias in sorted(known.aliases.items())
            if alias.digest
        },
        "versions": [
            {**short_json(digest, state), "status": state.versions[digest].status}
            for digest in known.versions
        ],
    }


def page_json(page: Page, state: State) -> dict[str, Any]:
    names = [
        {
            "name": known.name,
            "generation": known.generation,
            "release": release_json(known.release, state),
            "newest": short_json(known.versions[-1], state),
            "versions": len(known.versions),
        }
        for known in page.names
    ]
    return {"names": names, "after": page.after}


def release_json(release: Release | None, state: State) -> dict[str, Any] | None:
    if release is None:
        return None
    return {
        "stable": short_json(release.stable, state),
        "canary": short_json(release.canary, state) if release.canary else None,
        "share": release.share,
    }


def short_json(digest: Digest, state: State) -> dict[str, Any]:
    return {"version": state.versions[digest].version, "digest": str(digest)}


def mark_json(mark: Mark) -> dict[str, Any]:
    return {"seq": mark.seq, "time": mark.time, "actor": mark.actor, "reason": mark.reason}
