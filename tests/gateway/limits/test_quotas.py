"""Nobody gets more than the limit, nobody loses what was not used, and nothing stays counted."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from foreword.errors import QuotaExceeded
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.tenants import UNLIMITED, Limits
from foreword.serving.gateway.limits.buckets import Bucket
from foreword.serving.gateway.limits.quotas import Quotas, Ticket

ALICE = Principal("acme", "a" * 16, frozenset({"generate"}))
BOB = Principal("acme", "b" * 16, frozenset({"generate"}))
EVE = Principal("other", "e" * 16, frozenset({"generate"}))


def quotas(tenant: Limits = UNLIMITED, key: Limits = UNLIMITED) -> Quotas:
    return Quotas(lambda _tenant, _key_id: (tenant, key))


def refusal(held: Quotas, who: Principal, tokens: int, now: float) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as refused:
        held.admit(who, tokens, now)
    return refused.value


# Buckets


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 400)), min_size=1, max_size=60),
)
def test_no_window_sees_more_than_the_limit_and_what_flows_back(
    limit: int, asks: list[tuple[float, int]]
) -> None:
    bucket, now, spent = Bucket(), 0.0, []
    for pause, amount in asks:
        now += pause
        bucket = bucket.at_time(limit, now)
        if bucket.wait(limit, amount) == 0:
            bucket = bucket.spend(amount)
            spent.append((now, amount))
    for i, (start, _) in enumerate(spent):
        for end, _ in spent[i:]:
            used = sum(amount for at, amount in spent if start <= at <= end)
            assert used <= limit + (end - start) * limit / 60 + 1e-6


@given(st.integers(1, 10_000), st.floats(0, 10_000), st.floats(0, 10_000))
def test_who_waits_as_long_as_told_is_let_in_and_not_much_earlier(
    limit: int, spent: float, amount: float
) -> None:
    bucket = Bucket(min(spent, limit))
    wait = bucket.wait(limit, amount)
    if math.isinf(wait):
        assert amount > limit
        return
    assert bucket.at_time(limit, wait).wait(limit, amount) <= 1e-6
    if wait > 0.01:
        assert bucket.at_time(limit, wait * 0.9).wait(limit, amount) > 0


@given(
    st.integers(1, 100), st.floats(0, 100), st.floats(0, 50), st.floats(0, 50), st.floats(0, 100)
)
def test_when_something_is_given_back_does_not_matter(
    limit: int, spent: float, back: float, first: float, then: float
) -> None:
    early = Bucket(spent).spend(-back).at_time(limit, first).at_time(limit, first + then)
    late = Bucket(spent).at_time(limit, first).spend(-back).at_time(limit, first + then)
    assert early.spent == pytest.approx(late.spent, abs=1e-6)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(10, at=100)
    assert bucket.at_time(60, 50) == bucket


# Admission


def test_a_burst_up_to_the_limit_and_then_one_a_second() -> None:
    held = quotas(Limits(requests=60))
    for _ in range(60):
        held.admit(ALICE, 1, 0.0).settle()
    refused = refusal(held, ALICE, 1, 0.0)
    assert (refused.code, refused.retry_after) == ("quota.requests", pytest.approx(1.0))
    held.admit(ALICE, 1, 1.0).settle()
    assert refusal(held, ALICE, 1, 1.0).code == "quota.requests"


def test_a_short_answer_gives_the_rest_back() -> None:
    held = quotas(Limits(tokens=1000))
    ticket = held.admit(ALICE, 900, 0.0)
    assert refusal(held, ALICE, 200, 0.0).code == "quota.tokens"
    ticket.settle(100)
    held.admit(ALICE, 900, 0.0)
    assert refusal(held, ALICE, 1, 0.0).retry_after == pytest.approx(0.06)


def test_a_longer_answer_than_promised_is_paid_for() -> None:
    held = quotas(Limits(tokens=1000))
    held.admit(ALICE, 100, 0.0).settle(1000)
    assert refusal(held, ALICE, 1, 0.0).code == "quota.tokens"


def test_a_request_that_never_fits_is_not_told_to_wait() -> None:
    held = quotas(Limits(tokens=1000))
    refused = refusal(held, ALICE, 1001, 0.0)
    assert (refused.code, refused.retry_after) == ("quota.too_large", None)
    assert refusal(quotas(Limits(requests=0)), ALICE, 1, 0.0).code == "quota.too_large"
    assert refusal(quotas(Limits(streams=0)), ALICE, 1, 0.0).code == "quota.too_large"


def test_streams_are_those_that_are_open() -> None:
    held = quotas(Limits(streams=2))
    first, _second = held.admit(ALICE, 1, 0.0), held.admit(ALICE, 1, 0.0)
    refused = refusal(held, ALICE, 1, 1e9)
    assert refused.code == "quota.streams"
    assert refused.retry_after
    first.settle()
    held.admit(ALICE, 1, 0.0)
    assert held.streams == 2


def test_a_tenants_limit_is_shared_by_its_keys_and_by_nobody_else() -> None:
    held = quotas(Limits(requests=2))
    held.admit(ALICE, 1, 0.0)
    held.admit(BOB, 1, 0.0)
    refused = refusal(held, BOB, 1, 0.0)
    assert "tenant 'acme'" in str(refused)
    held.admit(EVE, 1, 0.0)


def test_a_keys_limit_stops_this_key_only_and_costs_its_tenant_nothing() -> None:
    held = quotas(Limits(requests=3), Limits(requests=1))
    held.admit(ALICE, 1, 0.0)
    for _ in range(5):
        assert ALICE.key_id in str(refusal(held, ALICE, 1, 0.0))
    held.admit(BOB, 1, 0.0)
    held.admit(EVE, 1, 0.0)


def test_another_limit_counts_at_once_and_keeps_what_was_spent() -> None:
    limits = [Limits(requests=10)]
    held = Quotas(lambda _tenant, _key_id: (limits[0], UNLIMITED))
    for _ in range(10):
        held.admit(ALICE, 1, 0.0)
    limits[0] = Limits(requests=12)
    held.admit(ALICE, 1, 0.0)
    held.admit(ALICE, 1, 0.0)
    assert refusal(held, ALICE, 1, 0.0).code == "quota.requests"
    limits[0] = Limits(requests=5)
    assert refusal(held, ALICE, 1, 59.0).code == "quota.requests"


def test_a_client_that_goes_away_leaves_nothing_but_what_it_got() -> None:
    held = quotas(Limits(tokens=1000, streams=1))

    def answer() -> None:
        with held.admit(ALICE, 1000, 0.0) as ticket:
            ticket.used = 10
            raise ConnectionError

    with pytest.raises(ConnectionError):
        answer()
    assert held.streams == 0
    held.admit(ALICE, 990, 0.0)


def test_a_ticket_is_settled_once() -> None:
    held = quotas(Limits(tokens=100, streams=1))
    with held.admit(ALICE, 100, 0.0) as ticket:
        ticket.settle(100)
        ticket.settle(0)
    ticket.settle(0)
    assert held.streams == 0
    assert refusal(held, ALICE, 100, 0.0).code == "quota.tokens"


def test_meters_of_ten_thousand_subjects_are_forgotten() -> None:
    held = quotas(Limits(tokens=10**9), Limits(tokens=60))
    for i in range(10_000):
        held.admit(Principal("acme", f"jwt:{i}", frozenset()), 1, float(i)).settle(1)
    assert len(held._meters) <= 2 * 1_024
    open_ticket = held.admit(Principal("acme", "jwt:open", frozenset()), 60, 1e6)
    for i in range(5_000):
        held.admit(Principal("acme", f"jwt:{i}", frozenset()), 1, 2e6 + i).settle(1)
    open_ticket.settle(60)  # its meter was not forgotten while it was open
    assert held.streams == 0


class Traffic(RuleBasedStateMachine):
    """Many requests that begin, end and go away in any order, against a plain count of them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limits = Limits(requests=30, tokens=500, streams=4)
        self.held = quotas(self.limits)
        self.open: list[Ticket] = []
        self.admitted: list[tuple[float, int]] = []

    @rule(tokens=st.integers(0, 600), who=st.sampled_from([ALICE, BOB]))
    def ask(self, tokens: int, who: Principal) -> None:
        try:
            self.open.append(self.held.admit(who, tokens, self.now))
        except QuotaExceeded:
            return
        self.admitted.append((self.now, tokens))

    @precondition(lambda self: self.open)
    @rule(share=st.floats(0, 1), pick=st.randoms(use_true_random=False))
    def end(self, share: float, pick: random.Random) -> None:
        ticket = self.open.pop(pick.randrange(len(self.open)))
        ticket.settle(int(share * ticket._promised))

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def as_many_as_are_open_and_never_too_many(self) -> None:
        assert self.held.streams == len(self.open) <= 4
        recent = [at for at, _ in self.admitted if at > self.now - 60]
        assert len(recent) <= 60 + 1

    def teardown(self) -> None:
        for ticket in self.open:
            ticket.settle(0)
        assert self.held.streams == 0
        assert all(
            meter.at_time(self.limits, self.now + 61).idle for meter in self.held._meters.values()
        )


TestTraffic = Traffic.TestCase
