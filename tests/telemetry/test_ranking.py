"""Which prefixes have series: the ones in use, without turning over at every request."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from foreword.telemetry.metrics.ranking import Ranking, Recent


def test_the_most_used_names_have_the_seats_under_zipf_traffic() -> None:
    ranking, rng = Ranking(20), random.Random(1)
    names = [f"p{i}" for i in range(1000)]
    weights = [1 / (rank + 1) for rank in range(1000)]
    now = 0.0
    for name in rng.choices(names, weights, k=60_000):
        ranking.use(name, now)
        now += 0.1
    assert {f"p{i}" for i in range(10)} <= ranking.seated
    assert len(ranking.seated) == 20


def test_a_flood_of_names_that_come_once_takes_no_seat_from_those_in_use() -> None:
    ranking = Ranking(3, tenure=0)
    for i in range(300):
        ranking.use(f"used{i % 3}", i / 10)
    left = [ranking.use(f"once{i}", 30 + i / 1000) for i in range(5000)]
    assert left == [None] * 5000
    assert ranking.seated == {"used0", "used1", "used2"}


def test_a_seat_is_kept_for_a_while_so_that_series_do_not_come_and_go() -> None:
    ranking = Ranking(1, half_life=1e9, tenure=600)
    ranking.use("old", 0)
    assert [ranking.use("new", i) for i in range(1, 600)] == [None] * 599
    assert ranking.use("new", 600) == "old"
    assert ranking.use("old", 601) is None
    assert ranking.seated == {"new"}


def test_use_fades() -> None:
    ranking = Ranking(1, half_life=60, tenure=0)
    for i in range(1000):
        ranking.use("yesterday", i / 100)
    assert ranking.use("today", 86_400) == "yesterday"


@given(
    st.lists(
        st.tuples(st.integers(0, 30).map(str), st.floats(0, 1e7, allow_subnormal=False)),
        max_size=200,
    ),
    st.integers(1, 5),
)
def test_there_are_never_more_names_than_seats_and_who_leaves_was_seated(
    uses: list[tuple[str, float]], seats: int
) -> None:
    """Whatever the clock does."""
    ranking = Ranking(seats, tenure=10)
    for name, now in uses:
        before = ranking.seated
        left = ranking.use(name, now)
        assert left is None or (left in before and left not in ranking.seated)
        assert ranking.seated == (before - {left} | {name} if left else ranking.seated)
        assert len(ranking.seated) <= seats


def test_recent_names_are_counted_once_forgotten_after_the_window_and_bounded() -> None:
    recent = Recent(window=10, most=5)
    for name in "aabbc":
        recent.note(name, 0)
    assert recent.count(5) == 3
    recent.note("a", 8)
    assert recent.count(11) == 1
    for i in range(100):
        recent.note(str(i), 12)
    assert recent.count(12) == 5
