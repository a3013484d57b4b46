"""R09: clients that use one registry at once see it as if they had come one after another."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from foreword.registry.entries import Entry, Published
from foreword.registry.fsck import fsck
from foreword.registry.layout import Layout, init
from foreword.registry.registry import Registry
from tests.reliability import model
from tests.reliability.clients import NAMES, Asked, History, Plan, ask, gather
from tests.reliability.grounds import Ground
from tests.reliability.linearizability import Call, Verdict, check
from tests.reliability.model import Done, Operation, Seen
from tests.reliability.report import LONG, Goals
from tests.reliability.world import LONG_AFTER, declare_base, policy

pytestmark = pytest.mark.reliability("R09")

HISTORIES = 200 if LONG else 3
PLAN = (
    Plan(seed=0, clients=8, operations=50, kills=3, pauses=1, pause=2.0) if LONG
    else Plan(seed=0, clients=4, operations=20, kills=1, pauses=1, pause=0.3)
)  # fmt: skip
LOOK = Operation("show")
SECONDS = 10.0
"""For the search in one history of one name."""


@dataclass
class Tally:
    """What came of all histories on one ground."""

    asked: int = 0
    unanswered: int = 0
    entries: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    spoiled: Counter[Verdict] = field(default_factory=Counter)
    """Of the same histories after one look in each was made a stale one."""
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def add(self, journal: Sequence[Entry], history: History) -> None:
        self.asked += history.asked
        self.unanswered += history.unanswered
        self.entries += len(journal)
        self.lost += audit(journal, history)
        for name, calls in history.calls.items():
            verdict = judge(calls)
            self.verdicts[verdict] += 1
            if verdict != "linearizable":
                in_order = sorted(calls, key=lambda call: call.began)
                self.wrong.append("\n".join([f"{name} is {verdict}:", *map(str, in_order)]))
            if stale := with_a_stale_look(calls):
                self.spoiled[judge(stale)] += 1


def test_every_history_is_linearizable_and_nothing_is_lost(
    ground: Ground, goals: Goals, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally()
    for seed in range(HISTORIES):
        with ground.empty() as layout:
            tally.add(*one_history(ground, layout, replace(PLAN, seed=seed)))
            tally.lost += broken(layout)
    judged, spoiled = tally.verdicts.total(), tally.spoiled.total()
    with capsys.disabled():
        print(f"\n{ground.name}: {HISTORIES} histories, {tally.asked} operations of which "
              f"{tally.unanswered} without an answer, {tally.entries} entries; by name "
              f"{dict(tally.verdicts)}, with a stale look {dict(tally.spoiled)}")  # fmt: skip
        print("\n".join(tally.wrong + tally.lost))
    goals.goal(f"{ground.name}: histories of one name that are linearizable, of {judged}",
               value=tally.verdicts["linearizable"],
               passed=tally.verdicts["linearizable"] == judged, count=tally.asked)  # fmt: skip
    goals.goal(f"{ground.name}: acknowledged changes that are lost, and versions that are there twice",
               value=len(tally.lost), passed=not tally.lost, count=tally.entries)  # fmt: skip
    found_out = tally.spoiled["not linearizable"]
    goals.goal(f"{ground.name}: of {spoiled} with one stale look put in, those found out",
               value=found_out, passed=found_out == spoiled > 0, count=spoiled)  # fmt: skip


def one_history(ground: Ground, layout: Layout, plan: Plan) -> tuple[list[Entry], History]:
    init(layout)
    with Registry.open(layout.directory) as registry:
        declare_base(registry)
    history = gather(layout.directory, ground.environment, plan)
    with Registry.open(layout.directory) as registry:
        for name in NAMES:  # and a last look, so that what was lost late is missed as well
            began = time.monotonic_ns()
            answer = ask(registry, name, LOOK)
            history.calls[name].append(Call(LOOK, answer, began, time.monotonic_ns()))
        return list(registry.log(after=1)), history


def judge(calls: Sequence[Asked]) -> Verdict:
    return check(calls, model.EMPTY, model.step, SECONDS)


def with_a_stale_look(calls: Sequence[Asked]) -> list[Asked] | None:
    """The same calls, but one look sees the generation before a change that had ended by then."""
    for place, look in enumerate(calls):
        if not isinstance(look.answer, Seen):
            continue
        for change in calls:
            if isinstance(change.answer, Done) and change.ended and change.ended < look.began:
                stale = replace(look.answer, generation=change.answer.seq - 1)
                return [*calls[:place], replace(look, answer=stale), *calls[place + 1 :]]
    return None


def audit(journal: Sequence[Entry], history: History) -> Iterator[str]:
    """What was acknowledged against what is there: nothing is lost, double, or from nowhere."""
    there = {entry.seq: entry for entry in journal}
    done = [(name, call, call.answer.seq) for name, calls in history.calls.items()
            for call in calls if isinstance(call.answer, Done)]  # fmt: skip
    for name, call, seq in done:
        if seq not in there or there[seq].event.name != name:
            yield f"{name}: {call.operation} was acknowledged, entry {seq} is {there.get(seq)}"
    published = Counter(
        (entry.event.name, entry.event.facts.version)
        for entry in journal if isinstance(entry.event, Published)
    )  # fmt: skip
    yield from (
        f"{name} {version} is there twice" for (name, version), n in published.items() if n > 1
    )
    unclaimed = there.keys() - {seq for _, _, seq in done}
    if len(unclaimed) > history.unanswered:
        yield f"the entries {sorted(unclaimed)} are more than the {history.unanswered} without an answer"


def broken(layout: Layout) -> Iterator[str]:
    for finding in fsck(layout, LONG_AFTER, policy=policy()).findings:
        if finding.severity != "leftover":
            yield str(finding)
