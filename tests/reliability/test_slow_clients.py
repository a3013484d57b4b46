"""R21: whoever is slow on purpose is cut off in time, costs a bounded buffer, and nobody else waits."""

from __future__ import annotations

import time

import pytest

from tests.gateway.edge_server import until
from tests.reliability.front_alone import front_alone
from tests.reliability.report import LONG, Goals
from tests.reliability.slow_clients import Good, Kind, begin, hold

pytestmark = pytest.mark.reliability("R21")

COUNT = 500 if LONG else 40
HEADERS, BODY, STALL = (10.0, 30.0, 60.0) if LONG else (1.0, 1.5, 2.0)
SETTINGS = {"header_seconds": HEADERS, "body_seconds": BODY, "stall_seconds": STALL}
SLOWER = 2 if LONG else 4
"""A sample of a few seconds on a shared machine says little about a hundredth of the answers."""
LATE = 2.0
"""Seconds a shared machine may take to notice; the rule is the deadline."""
FILLS = 4.0
"""Seconds until the stream has filled what the server keeps for a client that does not read."""


def test_slow_clients_are_cut_off_and_good_ones_do_not_notice(goals: Goals) -> None:
    counts: dict[Kind, int] = {"headers": COUNT, "body": COUNT, "reading": COUNT}
    with front_alone(SETTINGS) as front:
        calm, stormy = Good(front), Good(front)
        with calm.asking():
            time.sleep(20 if LONG else 3)
        before = front.facts()
        with stormy.asking():
            slow = begin(front, counts)
            time.sleep(min(1.0, HEADERS / 2))
            within = front.facts()
            seen = hold(front, slow, STALL + FILLS + 10)
        until(lambda: front.facts()["connections"] <= before["connections"])
        after = front.facts()

    goals.goal("all of them were there at once", value=within["connections"],
               passed=within["connections"] >= 3 * COUNT, count=3 * COUNT)  # fmt: skip
    # Of a reader also the time until it is felt.
    limits: dict[Kind, float] = {"headers": HEADERS, "body": BODY, "reading": STALL + FILLS}
    for kind, limit in limits.items():
        longest = max(one.lasted or float("inf") for one in slow if one.kind == kind)
        goals.goal(f"slow {kind}: all are cut off after {limit:g} s; the longest, in seconds",
                   value=longest, passed=longest <= limit + LATE, count=COUNT)  # fmt: skip
    largest = max(facts["write_buffer"] for facts in seen) / 1024
    goals.goal("the largest write buffer is at most 64 KiB", value=largest,
               passed=16 <= largest <= 64, count=len(seen))  # fmt: skip
    grown = (max(facts["rss"] for facts in seen) - before["rss"]) / 1024 / (3 * COUNT)
    goals.goal("the process grows by at most 256 KiB for each of them", value=grown,
               passed=grown <= 256, count=3 * COUNT)  # fmt: skip
    goals.goal("answers of good clients that were not whole", value=stormy.failed,
               passed=not stormy.failed, count=len(stormy.times))  # fmt: skip
    ratio = stormy.p99() / calm.p99()
    alone = f"{1000 * calm.p99():.0f} ms"
    goals.goal(f"good answers take at most {SLOWER} times as long at the 99th percentile, {alone} alone",
               value=ratio, passed=ratio <= SLOWER, count=len(stormy.times))  # fmt: skip
    left = {
        key: after[key] - before[key] for key in ("connections", "descriptors", "tasks", "running")
    }
    goals.goal("connections, descriptors, tasks and answers that are left behind",
               value=sum(left.values()), passed=not any(left.values()), count=3 * COUNT)  # fmt: skip


def test_a_server_without_these_limits_is_found_out(goals: Goals) -> None:
    """The same clients against deadlines that never come: the measurement itself is not blind."""
    with front_alone(
        {"header_seconds": 3600, "body_seconds": 3600, "stall_seconds": 3600}
    ) as front:
        slow = begin(front, {"headers": 5, "body": 5, "reading": 5})
        hold(front, slow, 2.5)
    kept = sum(one.lasted is None for one in slow)
    goals.goal("without deadlines all of them stay", value=kept, passed=kept == 15, count=15)
