"""Split a golden set in two, so that a row stays on its side however the set grows."""

from __future__ import annotations

import hashlib
from collections import defaultdict

from foreword.errors import UsageError
from foreword.evaluation.golden.golden_set import GoldenSet
from foreword.evaluation.golden.row import GoldenRow


def split(golden: GoldenSet, share: float, salt: str = "") -> tuple[GoldenSet, GoldenSet]:
    """About `share` of every cohort, and the rest; the sets are named `.held` and `.rest`.

    A row's side depends on its id and `salt` alone, so rows that are added later move no other row.
    A cohort of two rows or more has at least one on each side: of a cohort that fell wholly on one
    side, the row nearest to the border changes over.

    Raises:
        UsageError: `share` is not between 0 and 1, or a side has no rows (`golden.split`).
    """
    if not 0.0 < share < 1.0:
        raise UsageError(f"expected a share between 0 and 1, got {share:g}", code="golden.split")
    cohorts: dict[str, list[GoldenRow]] = defaultdict(list)
    for row in golden.rows:
        cohorts[row.cohort].append(row)
    held = frozenset[str]().union(*(_held(rows, share, salt) for rows in cohorts.values()))
    sides = (
        golden.only((row for row in golden.rows if row.id in held), "held"),
        golden.only((row for row in golden.rows if row.id not in held), "rest"),
    )
    if not all(side.rows for side in sides):
        raise UsageError(
            f"{len(golden.rows)} rows cannot be split with a share of {share:g}; one side would be "
            "empty",
            code="golden.split",
        )
    return sides


def _held(rows: list[GoldenRow], share: float, salt: str) -> frozenset[str]:
    places = sorted((_place(row.id, salt), row.id) for row in rows)
    held = [identity for place, identity in places if place < share]
    if len(places) > 1:
        held = held or [places[0][1]]
        held = held[: len(places) - 1]
    return frozenset(held)


def _place(identity: str, salt: str) -> float:
    """Where a row stands between 0 and 1, for ever."""
    data = hashlib.sha256(f"{salt}\0{identity}".encode()).digest()
    return int.from_bytes(data[:8], "big") / 2**64
