"""What a breaker does after which failure, and that it always lets a load through again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import (
    ArtifactError,
    CompatibilityError,
    NotFound,
    PrefixUnavailable,
    StorageError,
    TrustError,
)
from foreword.serving.engine.residency.breaker import Breaker, BreakerRules, Failure, after_failure

RULES = BreakerRules(tries=3, pause=0.1, shortest=0.5, longest=2.0, permanent=60.0)
SOON = Failure("prefix.fetch_failed", "no answer")
LATER = Failure("prefix.no_room", "full", "later")
NEVER = Failure("prefix.not_verified", "unsigned", "none")
failures = st.sampled_from([SOON, LATER, NEVER])


def row(*those: Failure, jitter: float = 0.0, now: float = 0.0) -> Breaker:
    breaker = None
    for failure in those:
        breaker = after_failure(breaker, failure, now, RULES, jitter)
    assert breaker is not None
    return breaker


@pytest.mark.parametrize(
    ("those", "wait", "refuses"),
    [
        ([SOON], 0.1, False),
        ([SOON] * 2, 0.2, False),
        ([SOON] * 3, 0.5, True),
        ([SOON] * 4, 1.0, True),
        ([SOON] * 5, 2.0, True),
        ([SOON] * 6, 2.0, True),
        ([SOON] * 5000, 2.0, True),  # a day of an outage is no overflow
        ([LATER], 0.5, True),
        ([NEVER], 60.0, True),
        ([SOON, NEVER], 60.0, True),
    ],
)
def test_each_row_of_failures_has_its_wait(
    those: list[Failure], wait: float, refuses: bool
) -> None:
    breaker = row(*those)
    assert breaker.until == pytest.approx(wait)
    assert breaker.refuses is refuses


@given(st.lists(failures, min_size=1, max_size=40), st.floats(0, 1, exclude_max=True))
def test_jitter_shortens_a_wait_by_half_at_most_and_every_wait_ends(
    those: list[Failure], jitter: float
) -> None:
    still, moved = row(*those), row(*those, jitter=jitter)
    assert still.until / 2 <= moved.until <= still.until <= RULES.permanent
    assert not moved.lets_through(moved.until - 0.001)
    assert moved.lets_through(moved.until)


def test_a_refusal_says_why_when_and_which() -> None:
    error = row(SOON, SOON, SOON, now=10.0).refusal("0123456789ab", 10.2)
    assert error.code == "prefix.fetch_failed"
    assert error.retry_after == pytest.approx(0.3)
    assert "0123456789ab" in str(error)
    assert "no answer" in str(error)
    assert "3 loads failed in a row" in str(error)


@pytest.mark.parametrize(
    ("error", "code", "hope"),
    [
        (StorageError("down"), "prefix.fetch_failed", "soon"),
        (NotFound("gone"), "prefix.fetch_failed", "soon"),
        (KeyError("x"), "prefix.fetch_failed", "soon"),
        (TimeoutError("slow"), "prefix.fetch_timeout", "later"),
        (MemoryError(), "prefix.no_memory", "soon"),
        (TrustError("unsigned"), "prefix.not_verified", "none"),
        (ArtifactError("cut off"), "prefix.damaged", "none"),
        (CompatibilityError("other"), "prefix.does_not_fit_base", "none"),
        (PrefixUnavailable("big", code="prefix.over_budget"), "prefix.over_budget", "none"),
        (
            PrefixUnavailable("full", code="prefix.no_room", retry_after=1.0),
            "prefix.no_room",
            "later",
        ),
    ],
)
def test_each_kind_of_error_has_its_code(error: BaseException, code: str, hope: str) -> None:
    failure = Failure.of(error)
    assert (failure.code, failure.hope) == (code, hope)


def test_a_text_from_elsewhere_steers_no_terminal() -> None:
    reason = Failure.of(ValueError("\x1b[2J" + "x" * 10_000)).reason
    assert reason.isprintable()
    assert len(reason) < 600
