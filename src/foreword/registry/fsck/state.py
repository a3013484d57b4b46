"""The state: what the entries lead to does not contradict itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from foreword.artifact.versions import precedence
from foreword.errors import CompatibilityError
from foreword.registry.compatibility import is_serving, require_base
from foreword.registry.fsck.finding import Finding, broken, doubtful
from foreword.registry.state import NameState, State, Version


def contradictions(state: State) -> Iterator[Finding]:
    """Everything about names and versions that `decide` would not have let happen, or that fails."""
    for known in state.names.values():
        yield from _releases(state, known)
        yield from _aliases(state, known)
        yield from _order(state, known)
    for version in state.versions.values():
        if version.status == "live":
            yield from _bases(state, version)


def _releases(state: State, known: NameState) -> Iterator[Finding]:
    release = known.release
    arms = {"stable": release.stable, "canary": release.canary} if release else {}
    for arm, digest in arms.items():
        if digest is None:
            continue
        version = state.versions.get(digest)
        if version is None or version.name != known.name:
            yield broken("release", known.name, f"its {arm} version {digest} is not one of its own",
                         f"release a version of {known.name}")  # fmt: skip
        elif version.status != "live":
            yield broken("release", known.name,
                         f"its {arm} version {version.version} was {version.status}; requests for it "
                         "are refused",
                         "roll back, or release another version")  # fmt: skip
    for digest in dict.fromkeys(known.history):
        if digest not in known.versions:
            yield broken("release", known.name, f"{digest}, which was stable, is not one of its own",
                         "nobody can roll back past it: restore a backup")  # fmt: skip


def _aliases(state: State, known: NameState) -> Iterator[Finding]:
    for word, alias in sorted(known.aliases.items()):
        if alias.digest is None:
            continue
        where, version = f"{known.name}@{word}", state.versions.get(alias.digest)
        mend = "let the alias stand for another version, or remove it"
        if version is None or version.name != known.name:
            yield broken("alias", where, f"{alias.digest} is not a version of {known.name}", mend)
        elif version.status != "live":
            yield doubtful("alias", where,
                           f"it stands for {version.version}, which was {version.status}", mend)  # fmt: skip


def _order(state: State, known: NameState) -> Iterator[Finding]:
    versions = [state.versions[digest].version for digest in known.versions]
    for before, after in pairwise(versions):
        if precedence(after) <= precedence(before):
            yield broken("order", f"{known.name}@{after}",
                         f"it was published after {before} and is not newer",
                         "find out who wrote to the journal; retire one of the two")  # fmt: skip


def _bases(state: State, version: Version) -> Iterator[Finding]:
    try:
        require_base(version.facts, state.bases)
    except CompatibilityError as e:
        severity = broken if is_serving(state, version) else doubtful
        yield severity("base", f"{version.name}@{version.version}", str(e),
                       "declare the base it was made for, or retire it")  # fmt: skip
