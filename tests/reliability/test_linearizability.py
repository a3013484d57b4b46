"""The checker of R09 finds what is wrong, and only that."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reliability import model
from tests.reliability.linearizability import Call, check
from tests.reliability.model import Done, Given, Operation, Refused, Seen

SECONDS = 10.0
V1, V2 = (1, 0), (2, 0)
SEEN = Seen(0, (), frozenset(), None, None, 0.0)


def at(
    began: int, ended: int | None, operation: Operation, answer: model.Answer | None
) -> Call[Operation, model.Answer]:
    return Call(operation, answer, began, ended)


PUBLISH_1, PUBLISH_2 = Operation("publish", 1), Operation("publish", 2)
RELEASE_1, RELEASE_2 = Operation("release", 1), Operation("release", 2)
RIGHT = {
    "nothing happened": [],
    "one after another": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 3, RELEASE_1, Done(3)),
        at(4, 5, Operation("resolve"), Given(1, None, 0.0)),
    ],
    "a look during a release sees what was before": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 6, RELEASE_1, Done(3)),
        at(3, 4, Operation("resolve"), Refused("registry.not_released")),
    ],
    "a killed client's release is seen": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, None, RELEASE_1, None),
        at(9, 10, Operation("resolve"), Given(1, None, 0.0)),
        at(11, 12, Operation("show"), replace(SEEN, generation=5, versions=(V1,), stable=1)),
    ],
    "a killed client's release is never seen": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, None, RELEASE_1, None),
        at(9, 10, Operation("resolve"), Refused("registry.not_released")),
    ],
    "the same release twice": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 3, RELEASE_1, Done(3)), at(4, 5, RELEASE_1, Done(3)),
    ],
    "of two who saw the same, one is late": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 3, PUBLISH_2, Done(3)),
        at(4, 9, replace(RELEASE_1, expect=3), Done(4)),
        at(5, 8, replace(RELEASE_2, expect=3), Refused("registry.generation")),
    ],
}  # fmt: skip
WRONG = {
    "a lost update: two who saw the same both succeed": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 3, PUBLISH_2, Done(3)),
        at(4, 9, replace(RELEASE_1, expect=3), Done(4)),
        at(5, 8, replace(RELEASE_2, expect=3), Done(5)),
    ],
    "a lost update: the first release is gone": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 3, RELEASE_1, Done(3)), at(4, 5, PUBLISH_2, Done(4)),
        at(6, 7, Operation("resolve"), Refused("registry.not_released")),
    ],
    "a stale read: a look after a release sees what was before": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 3, RELEASE_1, Done(3)),
        at(4, 5, Operation("resolve"), Refused("registry.not_released")),
    ],
    "a stale read: what was seen is unseen": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, None, RELEASE_1, None),
        at(3, 4, Operation("resolve"), Given(1, None, 0.0)),
        at(5, 6, Operation("resolve"), Refused("registry.not_released")),
    ],
    "a stale read: an old generation": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 3, RELEASE_1, Done(3)),
        at(4, 5, Operation("show"), replace(SEEN, generation=2, versions=(V1,), stable=1)),
    ],
    "a stale read: older than the entry that a killed client was found to have made": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, None, RELEASE_1, None), at(3, 4, RELEASE_1, Done(7)),
        at(5, 6, Operation("show"), replace(SEEN, generation=6, versions=(V1,), stable=1)),
    ],
    "a stale read: older than what a refusal had shown": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, None, PUBLISH_2, None),
        at(3, 4, replace(RELEASE_1, number=3, expect=7), Refused("registry.version_unknown")),
        at(5, 6, Operation("show"), replace(SEEN, generation=6, versions=(V1, V2))),
    ],
    "a duplicate version: other bytes under the same number": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 3, replace(PUBLISH_1, variant=1), Done(3)),
    ],
    "a duplicate version: the same bytes as a second entry": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 3, PUBLISH_1, Done(3)),
    ],
    "a version that is older than one that is there": [
        at(0, 1, PUBLISH_2, Done(2)), at(2, 3, PUBLISH_1, Done(3)),
    ],
    "a revoked version is given out": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 3, Operation("revoke", 1), Done(3)),
        at(4, 5, Operation("resolve_version", 1), Given(1, None, 0.0)),
    ],
    "two entries with one number": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 9, PUBLISH_2, Done(3)), at(3, 8, RELEASE_1, Done(3)),
    ],
    "a rollback to what is stable already": [
        at(0, 1, PUBLISH_1, Done(2)), at(2, 3, PUBLISH_2, Done(3)),
        at(4, 5, RELEASE_1, Done(4)), at(6, 7, RELEASE_2, Done(5)), at(8, 9, RELEASE_1, Done(6)),
        at(10, 11, Operation("revoke", 2), Done(7)), at(12, 13, Operation("rollback"), Done(8)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_history_that_may_be_is_accepted(name: str) -> None:
    assert check(RIGHT[name], model.EMPTY, model.step, SECONDS) == "linearizable"


@pytest.mark.parametrize("name", WRONG)
def test_a_history_that_cannot_be_is_rejected(name: str) -> None:
    assert check(WRONG[name], model.EMPTY, model.step, SECONDS) == "not linearizable"


def register(value: int, operation: int | None, answer: int | None) -> int | None:
    """A register: writes of a number (answered with it), and reads (None) of what is there."""
    if operation is not None:
        return operation if operation != value or answer is not None else None
    return value if answer == value else None


@st.composite
def register_calls(draw: st.DrawFn) -> list[Call[int | None, int]]:
    """A few overlapping calls, some of which are never answered."""
    moments = draw(st.permutations(range(12)))
    calls = []
    for place in range(draw(st.integers(0, 5))):
        began, ended = sorted(moments[2 * place : 2 * place + 2])
        write = draw(st.none() | st.integers(1, 2))
        answer = write or draw(st.integers(0, 2))
        is_told = draw(st.integers(0, 4)) > 0
        calls.append(Call(write, answer if is_told else None, began, ended if is_told else None))
    return calls


@given(register_calls())
def test_the_search_agrees_with_trying_every_order(calls: list[Call[int | None, int]]) -> None:
    found = check(calls, 0, register, SECONDS) == "linearizable"
    assert found == any(is_possible(order) for order in orders(calls))


def orders(calls: Sequence[Call[int | None, int]]) -> Iterator[Sequence[Call[int | None, int]]]:
    """Every order of the calls that were answered and of any of the others."""
    told = [call for call in calls if call.ended is not None]
    untold = [call for call in calls if call.ended is None]
    for count in range(len(untold) + 1):
        for some in itertools.combinations(untold, count):
            yield from itertools.permutations([*told, *some])


def is_possible(order: Sequence[Call[int | None, int]]) -> bool:
    value: int | None = 0
    for place, call in enumerate(order):
        if any(later.ended is not None and later.ended < call.began for later in order[place:]):
            return False
        value = register(value, call.operation, call.answer)
        if value is None:
            return False
    return True
