"""R18: streams whose clients go away leave nothing behind, and cost the others not one token."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.gateway.edge_server import until
from tests.reliability.report import LONG, Goals
from tests.reliability.served import Served
from tests.reliability.streams import Stream, crowd, faults, run

pytestmark = pytest.mark.reliability("R18")

STREAMS, ROUNDS = (1_000, 20) if LONG else (200, 1)
LEAVING = 0.1
BACK, ABORT = 2.0, 0.1
"""Seconds until everything is as before, and until the engine knows that somebody is gone."""
SHARE = 0.99 if LONG else 0.5
"""Of the aborts; those of one small round are too few for a percentile."""


@dataclass
class Seen:
    """What came of all rounds."""

    wrong: list[str] = field(default_factory=list)
    back: float = 0.0
    left: Counter[str] = field(default_factory=Counter)
    leavers: dict[tuple[int, int], Stream] = field(default_factory=dict)
    """By round and by the number they start at."""
    aborts: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)

    def round(self, server: Served, number: int, before: dict[str, int]) -> None:
        known, streams = len(server.facts()["aborts"]), crowd(STREAMS, LEAVING, seed=number)
        run(server, streams)
        self._rest(server, before)
        for each in streams:
            if each.leaves:
                self.leavers[number, each.start] = each
            else:
                self.wrong += faults(server, each)
        for abort in server.facts()["aborts"][known:]:
            self.aborts[number, abort["start"]] = abort

    def _rest(self, server: Served, before: dict[str, int]) -> None:
        """Until everything is as before, or ten times as long as that may take."""
        began = time.monotonic()
        while (now := server.rest()) != before and time.monotonic() - began < 10 * BACK:
            time.sleep(0.02)
        self.back = max(self.back, time.monotonic() - began)
        missing = {key: abs(value - before[key]) for key, value in now.items()}
        self.left.update({key: value for key, value in missing.items() if value})


def test_who_goes_away_takes_everything_along(goals: Goals, counting_server: Served) -> None:
    seen = Seen()
    server = counting_server
    run(server, crowd(STREAMS, 2 * LEAVING, seed=18))  # memory for rows is kept once it is there
    until(lambda: not server.rest()["running"])
    # What tenants used is written now and then, into a file that stays open from then on.
    until(lambda: any((server.home / "serve").rglob("usage-*.open.jsonl")), 60)
    time.sleep(1)
    before = server.rest()
    for number in range(ROUNDS):
        seen.round(server, number, before)
    stayed = ROUNDS * STREAMS - len(seen.leavers)
    goals.goal(f"streams that stayed with a piece wrong, missing or twice {''.join(seen.wrong[:1])}",
               value=len(seen.wrong), passed=not seen.wrong, count=stayed)  # fmt: skip
    left = dict(seen.left)
    goals.goal(f"rows, pins, bytes, tasks, sockets: exactly as before after 2 s {left or ''}",
               value=seen.back, passed=seen.back <= BACK and not left, count=ROUNDS * STREAMS)  # fmt: skip
    unheard = [each for key, each in seen.leavers.items()
               if key not in seen.aborts and each.leaves != "before an answer"]  # fmt: skip
    goals.goal("clients that left an answer without the engine being told", value=len(unheard),
               passed=not unheard and bool(seen.aborts), count=len(seen.leavers))  # fmt: skip
    steps = max(each["steps"] for each in seen.aborts.values())
    goals.goal("steps between the front's giving up and the engine's: at most 1", value=steps,
               passed=steps <= 1, count=len(seen.aborts))  # fmt: skip
    times = sorted(each["done"] - each["noticed"] for each in seen.aborts.values())
    late = times[math.ceil(SHARE * len(times)) - 1]
    goals.goal(f"milliseconds between them: at most 100 for {SHARE:.0%} of them", value=1000 * late,
               passed=late <= ABORT, count=len(times))  # fmt: skip


def test_a_server_that_does_not_look_who_is_there_is_found_out(
    goals: Goals, counting_server: Served
) -> None:
    """Nobody watches the connections; and pieces are lost, doubled and mixed up on purpose."""
    server = counting_server
    stays, other = Stream(7, "acme/one"), Stream(900, "acme/one")
    run(server, [stays, other])
    found = [bool(faults(server, each)) for each in _spoilt(stays, other)]
    goals.goal("answers with a piece lost, doubled or of another one: found", value=sum(found),
               passed=not faults(server, stays) and all(found), count=len(found))  # fmt: skip
    server.ask_inside("blind")
    known = len(server.facts()["aborts"])
    leavers = [Stream(start, "base", "reset", 100) for start in range(9)]
    run(server, leavers)
    time.sleep(0.1)
    facts = server.facts()
    server.ask_inside("blind")
    still = facts["rest"]["running"]
    goals.goal("clients that left and are still answered", value=still,
               passed=still > 0 and len(facts["aborts"]) == known, count=len(leavers))  # fmt: skip


def _spoilt(stream: Stream, other: Stream) -> list[Stream]:
    """Each chunk of the transfer is one event; the first line of the body begins after the head."""
    head, _, body = bytes(stream.received).partition(b"\r\n\r\n")
    events = body.split(b"\n\n\r\n")
    theirs = bytes(other.received).partition(b"\r\n\r\n")[2].split(b"\n\n\r\n")
    ways = (
        events[:20] + events[21:],
        [*events[:20], events[20], *events[20:]],
        [*events[:20], theirs[20], *events[21:]],
        events[:20],
    )
    return [
        replace(stream, received=bytearray(head + b"\r\n\r\n" + b"\n\n\r\n".join(each)))
        for each in ways
    ]
