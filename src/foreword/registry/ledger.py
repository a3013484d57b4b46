"""The journal together with the state that follows from it, and the one way to change either.

    1. read what is new in the journal
    2. let a pure function of the state choose an event, or refuse
    3. make sure of what the new entry will rely on
    4. append it right after the entry that was seen last

If somebody else appended first, all of it happens again, on what holds then.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from foreword.errors import Conflict, ForewordError
from foreword.registry.decide import Already, Decision
from foreword.registry.entries import By, Entry, Event
from foreword.registry.journal import Journal
from foreword.registry.references import ByDigest, Reference
from foreword.registry.state import State, fold

Choose = Callable[[State], Decision]
Prepare = Callable[[State, Event], None]

_ATTEMPTS = 50
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.25
"""Seconds, before a lost race is run again."""


def nothing(_state: State, _event: Event) -> None:
    """What most events rely on."""


class Ledger:
    """Reads the journal once, then only what is new. Safe to share between threads."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._state = State()
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """What was known when it was last looked; needs no database."""
        return self._state

    def refresh(self) -> State:
        """What holds now.

        Raises:
            RegistryError: the journal was tampered with.
            StorageError: the database could not be read; `state` is what was known before.
        """
        with self._lock:
            entries = list(self.journal.read(self._state.head))
            if entries:
                self._state = fold(self._state, entries)
            return self._state

    def change(
        self,
        choose: Choose,
        by: By,
        *,
        about: Reference | None = None,
        expect: int | None = None,
        prepare: Prepare = nothing,
    ) -> Entry:
        """The entry that made it so: a new one, or an old one if there was nothing left to do.

        `expect` is the generation that the name of `about` has to have. `prepare` runs before each
        try to append.

        Raises:
            Conflict: `expect` does not hold (`registry.generation`), or others were faster again and
                again (`registry.busy`).
            ForewordError: what `choose` and `prepare` raise.
            StorageError: the database refused, or the answer was lost; the same change again is safe.
        """
        for attempt in range(_ATTEMPTS):
            state = self.refresh()
            decision = _decide(state, choose, about, expect)
            if isinstance(decision, Already):
                return self.journal.entry(decision.seq)
            prepare(state, decision)
            try:
                entry = self.journal.append(state.head, decision, by)
            except Conflict:
                # Writers that lost together should not come back together.
                time.sleep(random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)))
                continue
            self._advance(entry)
            return entry
        raise Conflict(
            f"others changed the registry {_ATTEMPTS} times while this was tried; try again",
            code="registry.busy",
        )

    def _advance(self, entry: Entry) -> None:
        """Know our own entry at once: a change that is done must not fail on reading it back."""
        with self._lock:
            if self._state.head.hash == entry.previous:
                self._state = fold(self._state, [entry])


def _decide(state: State, choose: Choose, about: Reference | None, expect: int | None) -> Decision:
    try:
        decision = choose(state)
    except ForewordError as refusal:
        _check_generation(state, about, expect, refusal)
        raise
    if not isinstance(decision, Already):  # what is done already was done by us, or as we wanted it
        _check_generation(state, about, expect)
    return decision


def _check_generation(
    state: State,
    about: Reference | None,
    expect: int | None,
    refusal: ForewordError | None = None,
) -> None:
    name = _name(state, about)
    found = state.generation(name) if name else None
    if expect is not None and found != expect:
        raise Conflict(
            f"{name} was changed by others: expected generation {expect}, it is at {found}; look again, "
            "then decide again",
            code="registry.generation",
        ) from refusal


def _name(state: State, about: Reference | None) -> str | None:
    if isinstance(about, ByDigest):
        known = state.versions.get(about.digest)
        return known.name if known else None
    return about.name if about else None
