"""Key/value memory is never promised twice, and never lost."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from foreword.errors import ConfigError, EngineFailed
from foreword.serving.engine.waiting.ledger import Ledger, Reservation

BUDGET = 1000
OWNERS = st.sampled_from(["acme", "globex", ""])
SIZES = st.integers(0, 600)


def test_the_last_byte_can_be_had_and_not_one_more() -> None:
    ledger = Ledger(BUDGET)
    assert ledger.reserve("acme", BUDGET + 1) is None
    whole = ledger.reserve("acme", BUDGET)
    assert whole is not None
    assert ledger.free == 0
    assert ledger.reserve("globex", 1) is None
    assert ledger.reserve("globex", 0) is not None


def test_a_double_release_does_not_free_what_somebody_else_has_by_now() -> None:
    ledger = Ledger(BUDGET)
    first = ledger.reserve("acme", 700)
    assert first is not None
    ledger.release(first)
    second = ledger.reserve("acme", 700)
    with pytest.raises(EngineFailed, match="released or never made") as failure:
        ledger.release(first)
    assert failure.value.code == "serving.ledger"
    assert ledger.used == 700
    assert second is not None
    assert ledger.size(second) == 700


def test_a_reservation_of_another_ledger_is_no_good_here() -> None:
    other = Ledger(BUDGET).reserve("acme", 1)
    assert other is not None
    for use in (Ledger(BUDGET).release, Ledger(BUDGET).size):
        with pytest.raises(EngineFailed):
            use(other)


def test_a_resize_that_does_not_fit_changes_nothing() -> None:
    ledger = Ledger(BUDGET)
    small, large = ledger.reserve("acme", 100), ledger.reserve("globex", 800)
    assert small is not None
    assert large is not None
    assert not ledger.resize(small, 201)
    assert ledger.by_owner() == {"acme": 100, "globex": 800}
    assert ledger.resize(small, 200)
    assert ledger.resize(large, 0)
    assert ledger.by_owner() == {"acme": 200}


@pytest.mark.parametrize("nbytes", [-1, -BUDGET])
def test_less_than_nothing_is_a_fault(nbytes: int) -> None:
    ledger = Ledger(BUDGET)
    held = ledger.reserve("acme", 10)
    assert held is not None
    with pytest.raises(EngineFailed):
        ledger.reserve("acme", nbytes)
    with pytest.raises(EngineFailed):
        ledger.resize(held, nbytes)
    assert ledger.used == 10
    with pytest.raises(ConfigError):
        Ledger(nbytes)


def test_the_check_finds_a_wrong_total() -> None:
    ledger = Ledger(BUDGET)
    ledger.reserve("acme", 10)
    ledger._used = 11
    with pytest.raises(EngineFailed, match="add up to 10"):
        ledger.check_integrity()


class LedgerMachine(RuleBasedStateMachine):
    """Against a dictionary that is added up every time."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(BUDGET)
        self.model: dict[Reservation, int] = {}

    @rule(target=held, owner=OWNERS, nbytes=SIZES)
    def reserve(self, owner: str, nbytes: int) -> object:
        fits = sum(self.model.values()) + nbytes <= BUDGET
        reservation = self.ledger.reserve(owner, nbytes)
        assert (reservation is not None) == fits
        if reservation is None:
            return multiple()
        assert reservation not in self.model
        self.model[reservation] = nbytes
        return reservation

    @rule(reservation=held, nbytes=SIZES)
    def resize(self, reservation: Reservation, nbytes: int) -> None:
        fits = sum(self.model.values()) - self.model[reservation] + nbytes <= BUDGET
        assert self.ledger.resize(reservation, nbytes) == fits
        if fits:
            self.model[reservation] = nbytes

    @rule(reservation=consumes(held))
    def release(self, reservation: Reservation) -> None:
        self.ledger.release(reservation)
        del self.model[reservation]

    @invariant()
    def agrees(self) -> None:
        self.ledger.check_integrity()
        owners: dict[str, int] = {}
        for reservation, nbytes in self.model.items():
            owners[reservation.owner] = owners.get(reservation.owner, 0) + nbytes
            assert self.ledger.size(reservation) == nbytes
        assert self.ledger.by_owner() == {owner: size for owner, size in owners.items() if size}
        assert self.ledger.used == sum(owners.values()) == BUDGET - self.ledger.free <= BUDGET


TestLedgerMachine = LedgerMachine.TestCase
