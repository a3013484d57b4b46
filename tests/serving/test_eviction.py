"""Which prefix goes first: compared with an LRU on the same requests, with and without a scan."""

from __future__ import annotations

import random
from collections import OrderedDict
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact import Digest
from foreword.serving.engine.residency.eviction import IdleOrder

NAMES = [Digest(f"{number:064x}") for number in range(4000)]


def zipf(count: int, names: int, seed: int) -> list[int]:
    weights = list(accumulate(1 / (rank + 1) for rank in range(names)))
    return random.Random(seed).choices(range(names), cum_weights=weights, k=count)


def hit_rate(trace: list[int], capacity: int) -> float:
    order, uses, back, hits = IdleOrder(), dict[Digest, int](), dict[Digest, bool](), 0
    for number in trace:
        digest = NAMES[number]
        if digest in uses:
            hits += 1
        else:
            while len(uses) >= capacity:
                victim = order.evict()
                assert victim is not None
                del uses[victim]
            uses[digest], back[digest] = 0, order.came_back(digest)
        uses[digest] += 1
        order.add(digest, 1, known=back[digest] or uses[digest] > 1)
    return hits / len(trace)


def lru_hit_rate(trace: list[int], capacity: int) -> float:
    cache, hits = OrderedDict[int, None](), 0
    for number in trace:
        hits += number in cache
        cache[number] = None
        cache.move_to_end(number)
        if len(cache) > capacity:
            cache.popitem(last=False)
    return hits / len(trace)


def test_it_hits_more_often_than_an_lru() -> None:
    trace = zipf(30_000, 4000, seed=1)
    assert hit_rate(trace, 200) > lru_hit_rate(trace, 200) + 0.03


def test_a_scan_does_not_wash_the_known_ones_out() -> None:
    trace = zipf(30_000, 4000, seed=2)
    for place in range(0, len(trace), 4):  # every fourth request goes on with the scan
        trace[place] = place // 4 % 4000
    assert hit_rate(trace, 200) > lru_hit_rate(trace, 200) + 0.03


def test_when_everybodys_favourites_change_the_old_ones_leave() -> None:
    order = IdleOrder()
    for digest in NAMES[:10]:
        order.add(digest, 1, known=True)
    for digest in NAMES[10:20]:
        order.add(digest, 1, known=True)
        assert order.evict() is not None
    assert not any(digest in order for digest in NAMES[:10])


@given(st.lists(st.tuples(st.sampled_from("anrex"), st.integers(0, 15)), max_size=200))
def test_bytes_and_members_add_up_whatever_happens(steps: list[tuple[str, int]]) -> None:
    order, there = IdleOrder(), dict[Digest, int]()
    for what, number in steps:
        digest, nbytes = NAMES[number], 3 * number + 1
        if what in "an":
            order.add(digest, nbytes, known=what == "n")
            there[digest] = nbytes
        elif what == "r":
            order.remove(digest)
            there.pop(digest, None)
        elif what == "e":
            victim = order.evict()
            assert (victim in there) if there else (victim is None)
            if victim is not None:
                del there[victim]
                assert order.came_back(victim)
                assert not order.came_back(victim)
        assert order.nbytes == sum(there.values())
        assert len(order) == len(there)
        assert all(digest in order for digest in there)


def test_what_it_remembers_is_bounded() -> None:
    order = IdleOrder()
    for digest in NAMES:
        order.add(digest, 1, known=False)
        order.evict()
    assert sum(order.came_back(digest) for digest in NAMES) <= 64
