"""Retention: which versions may go, and why each of the others stays.

`plan` is a pure function of the state, so it is its own dry run; `apply` retires what the plan lets go,
and the registry decides about each again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from foreword.artifact import Digest
from foreword.errors import RegistryError, UsageError
from foreword.registry.entries import By, Entry
from foreword.registry.references import ByDigest
from foreword.registry.registry import Registry
from foreword.registry.state import NameState, State, Version
from foreword.signing.times import moment, stamp


@dataclass(frozen=True)
class Rules:
    """What is kept beyond what is in use."""

    keep: int = 10
    """The newest versions of each name."""
    older_than: timedelta = timedelta(days=90)
    """A version younger than this stays."""
    rollbacks: int = 3
    """Versions of each name that were stable last and could be rolled back to."""

    def __post_init__(self) -> None:
        if self.keep < 0 or self.rollbacks < 0 or self.older_than < timedelta(0):
            raise UsageError(
                f"expected no rule below zero, got keep {self.keep}, older_than {self.older_than}, "
                f"rollbacks {self.rollbacks}",
                code="retention.rules",
            )


@dataclass(frozen=True)
class Fate:
    """What becomes of one version."""

    name: str
    version: str
    digest: Digest
    goes: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "digest": str(self.digest),
            "goes": self.goes,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Plan:
    """The fate of every live version, by name, oldest first."""

    state: State
    """That it was made from."""
    fates: tuple[Fate, ...]

    @property
    def going(self) -> tuple[Fate, ...]:
        return tuple(fate for fate in self.fates if fate.goes)


@dataclass(frozen=True)
class Applied:
    """What came of one version that a plan let go."""

    fate: Fate
    entry: int | None
    """The entry that retired it; None if it stays."""
    refusal: str | None
    """Why it stays after all."""

    def to_json(self) -> dict[str, Any]:
        return {**self.fate.to_json(), "entry": self.entry, "refusal": self.refusal}


def plan(state: State, rules: Rules, now: datetime, prefix: str = "") -> Plan:
    """Decide about every live version of the names that begin with `prefix`.

    A version stays if one of these holds, and the first that does is its reason: it is stable or canary;
    an alias stands for it; it drifted and nothing newer was published since, so its snapshot is the data to
    train the next one from; it is one of the last `rollbacks` that could be rolled back to; it is one of
    the `keep` newest of its name; it is not older than `older_than`; a version that stays for one of
    these reasons was trained from it. That last rule goes one step back and no further, else a name
    whose versions are each trained from the one before would keep them all.
    """
    kept: dict[Digest, str] = {}
    for known in state.names.values():
        kept |= _kept(state, known, rules, now)
    parents = {
        parent: f"{state.versions[child]} was trained from it"
        for child in kept
        if (parent := state.versions[child].facts.lineage.parent)
    }
    reasons = {**parents, **kept}
    fates = (
        Fate(version.name, version.version, version.digest, version.digest not in reasons,
             reasons.get(version.digest) or _why_not(version, rules, now))
        for known in state.page(prefix, "", len(state.names))
        for version in _live(state, known)
    )  # fmt: skip
    return Plan(state, tuple(fates))


def apply(registry: Registry, plan: Plan, by: By) -> tuple[Applied, ...]:
    """Retire what the plan lets go; its reason is recorded unless `by` gives one.

    A name that anybody else changed since the plan was made is left as it is: what was true then may
    not be now. Make another plan for it.

    Raises:
        StorageError: the database refused; what was retired before stays retired.
    """
    generations: dict[str, int] = {}
    done = []
    for fate in plan.going:
        expect = generations.get(fate.name, plan.state.generation(fate.name))
        who = by if by.reason else replace(by, reason=fate.reason)
        try:
            entry = registry.retire(ByDigest(fate.digest), by=who, expect=expect)
        except RegistryError as refusal:
            done.append(Applied(fate, None, str(refusal)))
            continue
        if _is_by(entry, who):  # what somebody else did meanwhile stops the rest of this name
            generations[fate.name] = entry.seq
        done.append(Applied(fate, entry.seq, None))
    return tuple(done)


def _live(state: State, known: NameState) -> Iterator[Version]:
    return (v for v in map(state.versions.__getitem__, known.versions) if v.status == "live")


def _kept(state: State, known: NameState, rules: Rules, now: datetime) -> dict[Digest, str]:
    """What stays of one name for its own sake; the reason that weighs most is written last."""
    live = list(_live(state, known))
    reasons = {
        version.digest: f"it was published {_ago(version, now)}"
        for version in live
        if now - moment(version.published.time) <= rules.older_than
    }
    newest = [version.digest for version in live[::-1][: rules.keep]]
    reasons |= dict.fromkeys(newest, f"it is one of the {rules.keep} newest")
    if live and live[-1].drifts and live[-1].digest == known.versions[-1]:
        reasons[live[-1].digest] = "it drifted, and nothing newer was trained from its snapshot yet"
    before = _rollback_targets(state, known)[: rules.rollbacks]
    reasons |= dict.fromkeys(before, "it was stable before and could be rolled back to")
    for word, alias in sorted(known.aliases.items(), reverse=True):
        if alias.digest and state.versions[alias.digest].status == "live":
            reasons[alias.digest] = f"the alias {word!r} stands for it"
    if known.release and known.release.canary:
        reasons[known.release.canary] = f"it is the canary with share {known.release.share}"
    if known.release:
        reasons[known.release.stable] = "it is stable"
    return reasons


def _why_not(version: Version, rules: Rules, now: datetime) -> str:
    rank = f", it is not one of the {rules.keep} newest" if rules.keep else ""
    return f"it was published {_ago(version, now)}{rank}, and nothing needs it"


def _rollback_targets(state: State, known: NameState) -> list[Digest]:
    """Live versions that were stable before, the latest first, each once."""
    before = dict.fromkeys(reversed(known.history))
    stable = known.release.stable if known.release else None
    return [d for d in before if state.versions[d].status == "live" and d != stable]


def _ago(version: Version, now: datetime) -> str:
    days = (now - moment(version.published.time)).days
    return f"{days} day{'' if days == 1 else 's'} ago"


def _is_by(entry: Entry, by: By) -> bool:
    return (entry.actor, entry.time, entry.reason) == (by.actor, stamp(by.now), by.reason)
