"""Whether a history of concurrent operations could have happened one after another.

The search of Wing and Gong (1993) with the memory of Lowe (2017): pick any operation that was not
preceded by another one that is still open, let the model do it, go on; go back where the model says no;
never look twice at the same set of done operations with the same state.

An operation without an answer, because its client was killed, may have happened at any time after it was
asked for, or never.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Operation = TypeVar("Operation")
Answer = TypeVar("Answer")
State = TypeVar("State", bound=Hashable)

Verdict = Literal["linearizable", "not linearizable", "out of time"]


@dataclass(frozen=True)
class Call(Generic[Operation, Answer]):
    """One operation of one client."""

    operation: Operation
    answer: Answer | None
    """None if none came."""
    began: int
    ended: int | None
    """By one clock for all clients; None with `answer`."""


Step = Callable[[State, Operation, Answer | None], State | None]
"""State after an operation that gave this answer; None if it could not have given it. For an operation
without an answer: the state if it happened, None if it would have changed nothing."""


@dataclass
class _Event:
    """The begin or the end of a call, in a list from which calls are taken out and put back."""

    call: int
    is_end: bool
    before: _Event | None = None
    after: _Event | None = None
    end: _Event | None = None

    def take_out(self) -> None:
        for event in (self, self.end):
            if event and event.before:
                event.before.after = event.after
            if event and event.after:
                event.after.before = event.before

    def put_back(self) -> None:
        for event in (self.end, self):
            if event and event.before:
                event.before.after = event
            if event and event.after:
                event.after.before = event


def check(
    calls: Sequence[Call[Operation, Answer]],
    initial: State,
    step: Step[State, Operation, Answer],
    seconds: float,
) -> Verdict:
    """Search for an order of the calls that the model and the clock allow."""
    deadline = time.monotonic() + seconds
    head = _events(calls)
    left = sum(call.ended is not None for call in calls)
    state, done = initial, 0
    seen: set[tuple[int, State]] = set()
    taken: list[tuple[_Event, State]] = []
    event = head.after
    while left:
        if time.monotonic() > deadline:
            return "out of time"
        if event is not None and not event.is_end:
            call = calls[event.call]
            following = step(state, call.operation, call.answer)
            reached = done | 1 << event.call
            if following is not None and (reached, following) not in seen:
                seen.add((reached, following))
                taken.append((event, state))
                state, done = following, reached
                left -= call.ended is not None
                event.take_out()
                event = head.after
            else:
                event = event.after
            continue
        # An operation ended here, so it has to come before all that began later: too late for it now.
        if not taken:
            return "not linearizable"
        event, state = taken.pop()
        done ^= 1 << event.call
        left += calls[event.call].ended is not None
        event.put_back()
        event = event.after
    return "linearizable"


def _events(calls: Sequence[Call[Operation, Answer]]) -> _Event:
    """All begins and ends in the order of time, behind an event that stands for the start."""
    timed: list[tuple[int, bool, _Event]] = []
    for place, call in enumerate(calls):
        begin = _Event(place, False)
        timed.append((call.began, False, begin))
        if call.ended is not None:
            begin.end = _Event(place, True)
            timed.append((call.ended, True, begin.end))
    head = last = _Event(-1, True)
    # A begin comes before an end of the same moment: then the two calls count as concurrent.
    for _, _, event in sorted(timed, key=lambda entry: entry[:2]):
        event.before, last.after = last, event
        last = event
    return head
