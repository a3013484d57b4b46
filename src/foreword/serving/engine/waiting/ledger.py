"""`Ledger`: who holds how many bytes of attention key/value memory.

Memory is promised here before it is touched, so that running out of it is an answer at admission and
never a crash in a step. The ledger counts; it allocates nothing. One thread uses it.
"""

from __future__ import annotations

from dataclasses import dataclass

from foreword.errors import ConfigError, EngineFailed


@dataclass(frozen=True)
class Reservation:
    """A promise of memory. Give it back once."""

    number: int
    owner: str


class Ledger:
    """Reservations within a budget of bytes.

    Raises:
        ConfigError: the budget is below zero.
    """

    def __init__(self, budget: int) -> None:
        if budget < 0:
            raise ConfigError(
                f"expected a key/value memory budget of 0 bytes or more, got {budget}",
                code="config.kv_budget",
            )
        self.budget = budget
        self._used = 0
        self._number = 0
        self._held: dict[Reservation, int] = {}
        self._by_owner: dict[str, int] = {}

    @property
    def used(self) -> int:
        """Bytes that are promised now."""
        return self._used

    @property
    def free(self) -> int:
        """Bytes that can still be promised."""
        return self.budget - self._used

    def by_owner(self) -> dict[str, int]:
        """Bytes of every owner that holds any."""
        return dict(self._by_owner)

    def reserve(self, owner: str, nbytes: int) -> Reservation | None:
        """Promise `nbytes` to `owner`; None if there is no room now.

        Raises:
            EngineFailed: `nbytes` is below zero.
        """
        _check_amount(nbytes)
        if nbytes > self.free:
            return None
        self._number += 1
        reservation = Reservation(self._number, owner)
        self._book(reservation, nbytes)
        return reservation

    def size(self, reservation: Reservation) -> int:
        """Bytes of a reservation that is held.

        Raises:
            EngineFailed: it was released before, or never made here.
        """
        held = self._held.get(reservation)
        if held is None:
            raise EngineFailed(
                f"expected a reservation that is held, got number {reservation.number} of "
                f"{reservation.owner[:80]!r}, which was released or never made; this is a fault in the "
                "engine",
                code="serving.ledger",
            )
        return held

    def resize(self, reservation: Reservation, nbytes: int) -> bool:
        """Make a reservation larger or smaller; False, and nothing changed, if there is no room.

        Raises:
            EngineFailed: it is not held, or `nbytes` is below zero.
        """
        _check_amount(nbytes)
        held = self.size(reservation)
        if nbytes - held > self.free:
            return False
        self._book(reservation, nbytes)
        return True

    def release(self, reservation: Reservation) -> None:
        """Give the memory back.

        Raises:
            EngineFailed: it is not held, so somebody else may have the memory by now.
        """
        self.size(reservation)
        self._book(reservation, 0)
        del self._held[reservation]

    def check_integrity(self) -> None:
        """Count again from the reservations.

        Raises:
            EngineFailed: a total is not what the reservations add up to, or over the budget.
        """
        owners: dict[str, int] = {}
        for reservation, nbytes in self._held.items():
            owners[reservation.owner] = owners.get(reservation.owner, 0) + nbytes
        if (
            {owner: nbytes for owner, nbytes in owners.items() if nbytes} != self._by_owner
            or sum(owners.values()) != self._used
            or not 0 <= self._used <= self.budget
            or min(self._held.values(), default=0) < 0
        ):
            raise EngineFailed(
                f"the ledger says {self._used} of {self.budget} bytes are used, its "
                f"{len(self._held)} reservations add up to {sum(owners.values())}",
                code="serving.ledger",
            )

    def _book(self, reservation: Reservation, nbytes: int) -> None:
        change = nbytes - self._held.get(reservation, 0)
        self._held[reservation] = nbytes
        self._used += change
        total = self._by_owner.pop(reservation.owner, 0) + change
        if total:
            self._by_owner[reservation.owner] = total


def _check_amount(nbytes: int) -> None:
    if nbytes < 0:
        raise EngineFailed(
            f"expected a reservation of 0 bytes or more, got {nbytes}; this is a fault in the engine",
            code="serving.ledger",
        )
