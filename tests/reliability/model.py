"""What the registry promises about one name, as a sequential machine. Knows nothing of its code.

Versions are numbers; two variants of one number are versions with other bytes. An answer is `Done(seq)`
with the number of the entry that made it so, `Refused(code)`, or what a look gave.

After an operation whose client was killed nobody knows which number its entry has; the generation is then
only known to be later than the last one, until somebody sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal[
    "publish", "release", "shift", "rollback", "revoke", "resolve", "resolve_version", "show"
]


@dataclass(frozen=True)
class Operation:
    """What a client asks for."""

    kind: Kind
    number: int = 0
    """Of a version; a rollback with 0 names none."""
    variant: int = 0
    share: float = 1.0
    expect: int | None = None
    """The generation the name has to have."""


@dataclass(frozen=True)
class Done:
    """The change holds; entry `seq` tells it."""

    seq: int


@dataclass(frozen=True)
class Refused:
    """It was refused with this code."""

    code: str


@dataclass(frozen=True)
class Seen:
    """What a look at the whole name gave."""

    generation: int
    versions: tuple[tuple[int, int], ...]
    """Number and variant, oldest first."""
    revoked: frozenset[int]
    stable: int | None
    canary: int | None
    share: float


@dataclass(frozen=True)
class Given:
    """What a name or a version stands for."""

    number: int
    canary: int | None
    share: float


Answer = Done | Refused | Seen | Given


@dataclass(frozen=True)
class Name:
    """Everything that holds for one name."""

    generation: int = 0
    is_exact: bool = True
    """False if later entries may be there that nobody has seen yet."""
    versions: tuple[tuple[int, int], ...] = ()
    revoked: frozenset[int] = frozenset()
    stable: int | None = None
    canary: int | None = None
    share: float = 0.0
    history: tuple[int, ...] = ()
    last: tuple[str, float] = ("", 0.0)
    """The last operation that changed the release, and its share."""

    def variant(self, number: int) -> int | None:
        return dict(self.versions).get(number)

    def back(self, but: int | None) -> int | None:
        """Another version that was stable before and still may be used."""
        usable = (n for n in reversed(self.history) if n not in self.revoked and n != but)
        return next(usable, None)

    def until(self, number: int | None) -> tuple[int, ...]:
        """The history before a version was stable last."""
        if number is None or number not in self.history:
            return ()
        return self.history[: len(self.history) - 1 - self.history[::-1].index(number)]


EMPTY = Name()
_Outcome = Name | Refused | Done
_UNCHANGED = Done(0)
"""It holds already: the answer is an entry that was there before."""
_LOOKS = ("resolve", "resolve_version", "show")


def step(name: Name, operation: Operation, answer: Answer | None) -> Name | None:
    """The name after an operation that was answered so; None if it cannot have been.

    Without an answer: the name after it happened, None if it would have changed nothing.
    """
    if operation.kind in _LOOKS:
        return _look(name, operation, answer)
    outcome = _RULES[operation.kind](name, operation)
    if answer is None:
        return _happened(name, operation, outcome)
    if answer == Refused("registry.generation"):
        # What holds already is said whatever was expected.
        return name if outcome != _UNCHANGED and _may_differ(name, operation.expect) else None
    if isinstance(outcome, Done):
        return _already(name, answer)
    if not _may_be(name, operation.expect):
        return None
    if isinstance(outcome, Refused):
        return _known(name, operation.expect) if answer == outcome else None
    if not isinstance(answer, Done) or answer.seq <= max(name.generation, operation.expect or 0):
        return None
    return replace(outcome, generation=answer.seq, is_exact=True)


def _already(name: Name, answer: Answer) -> Name | None:
    """An entry that was there before: at the generation, or earlier."""
    if not isinstance(answer, Done) or (name.is_exact and answer.seq > name.generation):
        return None
    return replace(name, generation=max(name.generation, answer.seq))


def _known(name: Name, generation: int | None) -> Name:
    """The name once somebody has seen its generation."""
    return name if generation is None else replace(name, generation=generation, is_exact=True)


def _happened(name: Name, operation: Operation, outcome: _Outcome) -> Name | None:
    """The name if it did happen: its entry has some later number."""
    if not isinstance(outcome, Name) or not _may_be(name, operation.expect):
        return None
    return replace(outcome, generation=name.generation + 1, is_exact=False)


def _may_be(name: Name, expect: int | None) -> bool:
    """True if the generation can be what was expected."""
    if expect is None or expect == name.generation:
        return True
    return not name.is_exact and expect > name.generation


def _may_differ(name: Name, expect: int | None) -> bool:
    """True if the generation can be another one."""
    return expect is not None and not (name.is_exact and expect == name.generation)


def _look(name: Name, operation: Operation, answer: Answer | None) -> Name | None:
    if not isinstance(answer, Seen):
        return name if answer is not None and answer == _given(name, operation) else None
    seen = Seen(
        answer.generation, name.versions, name.revoked, name.stable, name.canary, name.share
    )
    if answer != seen or not name.versions or not _may_be(name, answer.generation):
        return None
    return _known(name, answer.generation)


def _given(name: Name, operation: Operation) -> Answer | None:
    """The answer to a look; None for a look at all there is."""
    if not name.versions:
        return Refused("registry.name_unknown")
    if operation.kind == "show":
        return None
    if operation.kind == "resolve":
        if name.stable is None:
            return Refused("registry.not_released")
        return Given(name.stable, name.canary, name.share)
    return _usable(name, operation.number) or Given(operation.number, None, 0.0)


def _usable(name: Name, number: int) -> Refused | None:
    """Why a version cannot be used."""
    if not name.versions:
        return Refused("registry.name_unknown")
    if name.variant(number) is None:
        return Refused("registry.version_unknown")
    return Refused("registry.revoked") if number in name.revoked else None


def _publish(name: Name, operation: Operation) -> _Outcome:
    there = name.variant(operation.number)
    if there == operation.variant:
        return Refused("registry.revoked") if operation.number in name.revoked else _UNCHANGED
    if there is not None:
        return Refused("registry.version_taken")
    if name.versions and operation.number <= name.versions[-1][0]:
        return Refused("registry.version_not_newer")
    return replace(name, versions=(*name.versions, (operation.number, operation.variant)))


def _release(name: Name, operation: Operation) -> _Outcome:
    number, share = operation.number, operation.share
    if refused := _usable(name, number):
        return refused
    holds = (number, None) if share == 1 else (name.stable, number)
    if (name.stable, name.canary) == holds and (share == 1 or name.share == share):
        return _UNCHANGED
    if name.stable is None and share < 1:
        return Refused("registry.no_stable")
    if name.canary not in (None, number):
        return Refused("registry.canary_running")
    if name.stable == number:
        return Refused("registry.is_stable")
    return _with_share(name, number, share, ("release", share))


def _shift(name: Name, operation: Operation) -> _Outcome:
    if refused := _released(name):
        return refused
    change = ("shift", operation.share)
    if name.canary is None:
        return _UNCHANGED if name.last == change else Refused("registry.no_canary")
    if name.share == operation.share:
        return _UNCHANGED
    return _with_share(name, name.canary, operation.share, change)


def _with_share(name: Name, number: int, share: float, change: tuple[str, float]) -> Name:
    if share < 1:
        return replace(name, canary=number, share=share, last=change)
    history = name.history if name.stable is None else (*name.history, name.stable)
    return replace(name, stable=number, canary=None, share=0.0, history=history, last=change)


def _rollback(name: Name, operation: Operation) -> _Outcome:
    if refused := _released(name):
        return refused
    change = replace(name, canary=None, share=0.0, last=("rollback", 0.0))
    if operation.number:
        return _back_to(name, operation.number, change)
    if name.canary is not None:
        return change
    if name.last == change.last:
        return _UNCHANGED
    back = name.back(but=name.stable)
    if back is None:
        return Refused("registry.no_previous")
    return replace(change, stable=back, history=name.until(back))


def _back_to(name: Name, number: int, change: Name) -> _Outcome:
    if refused := _usable(name, number):
        return refused
    if number == name.stable:
        return _UNCHANGED if name.canary is None else change
    if number not in name.history:
        return Refused("registry.never_stable")
    return replace(change, stable=number, history=name.until(number))


def _revoke(name: Name, operation: Operation) -> _Outcome:
    number = operation.number
    if refused := _usable(name, number):
        return _UNCHANGED if refused.code == "registry.revoked" else refused
    name = replace(name, revoked=name.revoked | {number})
    ends = replace(name, canary=None, share=0.0, last=("revoke", 0.0))
    if name.stable == number:
        back = name.back(but=number)
        return replace(ends, stable=back, history=name.until(back))
    return ends if name.canary == number else name


def _released(name: Name) -> Refused | None:
    if not name.versions:
        return Refused("registry.name_unknown")
    return Refused("registry.not_released") if name.stable is None else None


_RULES: dict[str, Callable[[Name, Operation], _Outcome]] = {
    "publish": _publish,
    "release": _release,
    "shift": _shift,
    "rollback": _rollback,
    "revoke": _revoke,
}
