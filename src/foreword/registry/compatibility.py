"""Which versions fit which bases, and what a new base would break. Pure; the same rules as when loading."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from foreword.errors import CompatibilityError
from foreword.registry.facts import Base, VersionFacts
from foreword.registry.state import State, Version


@dataclass(frozen=True)
class Misfit:
    """Why a version cannot be used with a base."""

    code: str
    """As `load_prefix` would refuse it: `base.fingerprint`, `base.tokenizer`, `base.geometry` or
    `base.context`."""
    reason: str


@dataclass(frozen=True)
class Row:
    """A version beside every base: None where it fits."""

    version: Version
    misfits: tuple[Misfit | None, ...]
    """In the order of `Matrix.bases`."""

    @property
    def fits_any(self) -> bool:
        return None in self.misfits


@dataclass(frozen=True)
class Matrix:
    """Versions against bases."""

    bases: tuple[Base, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Breakage:
    """A version that fits the base as it is, and would not fit the one that replaces it."""

    version: Version
    misfit: Misfit
    serving: bool
    """It is stable or canary now."""


def misfit(facts: VersionFacts, base: Base) -> Misfit | None:
    """The first reason why a version does not fit a base, or None if it does."""
    made_for, ref = facts.base, base.ref
    who = f"{facts.name} {facts.version}"
    if made_for.fingerprint != ref.fingerprint:
        return Misfit(
            "base.fingerprint",
            f"{who} was made for {made_for.id[:80]!r} ({made_for.fingerprint.short}), {ref.id} has "
            f"other weights or configuration ({ref.fingerprint.short}); train it again",
        )
    if ref.tokenizer is not None and made_for.tokenizer != ref.tokenizer:
        return Misfit(
            "base.tokenizer",
            f"{who} was made with another tokenizer or chat template than {ref.id} has; restore the "
            "base's tokenizer files, or train it again",
        )
    if not base.geometry.covers(facts.geometry):
        return Misfit(
            "base.geometry", f"{who} attaches to layers or shapes that {ref.id} does not have"
        )
    if ref.context is not None and facts.length >= ref.context:
        return Misfit(
            "base.context",
            f"{who} has {facts.length} virtual tokens, the context of {ref.id} is {ref.context}; no "
            "room is left for a prompt",
        )
    return None


def require_base(facts: VersionFacts, bases: Iterable[Base]) -> Base:
    """A declared base that the version fits.

    Raises:
        CompatibilityError: there is none, with the reason of the one that comes nearest.
    """
    misfits = []
    for base in bases:
        found = misfit(facts, base)
        if found is None:
            return base
        misfits.append(found)
    near = [each for each in misfits if each.code != "base.fingerprint"]
    if near:
        raise CompatibilityError(near[0].reason, code=near[0].code)
    raise CompatibilityError(
        f"{facts.name} {facts.version} was made for {facts.base.id[:80]!r} "
        f"({facts.base.fingerprint.short}); none of the {len(misfits)} declared bases has these weights. "
        "Declare it with `foreword registry declare-base`, or train the prefix on one that is",
        code="base.fingerprint",
    )


def matrix(state: State, prefix: str = "") -> Matrix:
    """Every live version of the names that begin with `prefix`, against every declared base."""
    rows = (
        Row(version, tuple(misfit(version.facts, base) for base in state.bases))
        for version in _live(state, prefix)
    )
    return Matrix(state.bases, tuple(rows))


def what_breaks(state: State, current: Base, upgrade: Base) -> tuple[Breakage, ...]:
    """Live versions that fit `current` and would not fit `upgrade`; those that serve come first."""
    broken = [
        Breakage(version, reason, is_serving(state, version))
        for version in _live(state, "")
        if misfit(version.facts, current) is None
        and (reason := misfit(version.facts, upgrade)) is not None
    ]
    return tuple(sorted(broken, key=lambda each: not each.serving))


def is_serving(state: State, version: Version) -> bool:
    """True if the version is stable or canary now."""
    release = state.names[version.name].release
    return release is not None and version.digest in (release.stable, release.canary)


def _live(state: State, prefix: str) -> Iterable[Version]:
    for known in state.page(prefix, "", len(state.names)):
        for digest in known.versions:
            if state.versions[digest].status == "live":
                yield state.versions[digest]
