"""Which prefixes have series of their own: the most used ones, and seldom others than before.

A client chooses how many names it uses, so names are no labels by themselves. A name takes a seat if
one is free, or from a name that is used less than half as much and has sat for a while. Use fades
with a half-life.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_CANDIDATES_PER_SEAT = 4
_LARGEST_WEIGHT = 1e60


class Fading:
    """Weights for sums in which what happened a half-life ago counts half.

    Instead of all sums shrinking with time, what is added grows (forward decay).
    """

    def __init__(self, half_life: float) -> None:
        self._half_life, self._began = half_life, 0.0

    def weight(self, now: float) -> float:
        """Of something that happens now. Only ratios of weights mean anything."""
        return float(2.0 ** min((now - self._began) / self._half_life, 1000.0))

    def restart(self, now: float) -> float | None:
        """If weights have grown too large: what to multiply all sums with, once."""
        if (weight := self.weight(now)) < _LARGEST_WEIGHT:
            return None
        self._began = now
        return 1.0 / weight


@dataclass
class _Seat:
    use: float
    since: float


class Ranking:
    """At most `seats` names at a time; a name that got its seat keeps it for `tenure` seconds."""

    def __init__(self, seats: int, *, half_life: float = 600.0, tenure: float = 600.0) -> None:
        self._most, self._tenure = seats, tenure
        self._fading = Fading(half_life)
        self._seats: dict[str, _Seat] = {}
        self._candidates: dict[str, float] = {}

    @property
    def seated(self) -> frozenset[str]:
        return frozenset(self._seats)

    def use(self, name: str, now: float) -> str | None:
        """Note one use. Gives the name that had to leave its seat for this one, if any."""
        self._restart(now)
        weight = self._fading.weight(now)
        if (seat := self._seats.get(name)) is not None:
            seat.use += weight
            return None
        use = self._candidates.pop(name, 0.0) + weight
        if len(self._seats) < self._most:
            self._seats[name] = _Seat(use, now)
            return None
        weakest = min(self._seats, key=lambda each: self._seats[each].use)
        held = self._seats[weakest]
        if use <= 2 * held.use or now - held.since < self._tenure:
            self._keep_candidate(name, use)
            return None
        del self._seats[weakest]
        self._keep_candidate(weakest, held.use)
        self._seats[name] = _Seat(use, now)
        return weakest

    def _keep_candidate(self, name: str, use: float) -> None:
        if len(self._candidates) >= _CANDIDATES_PER_SEAT * self._most:
            del self._candidates[min(self._candidates, key=self._candidates.__getitem__)]
        self._candidates[name] = use

    def _restart(self, now: float) -> None:
        if (factor := self._fading.restart(now)) is None:
            return
        for seat in self._seats.values():
            seat.use *= factor
        self._candidates = {name: use * factor for name, use in self._candidates.items()}


class Recent:
    """How many different names there were in the last `window` seconds, up to `most`."""

    def __init__(self, window: float = 300.0, most: int = 10_000) -> None:
        self._window, self._most = window, most
        self._seen: OrderedDict[int, float] = OrderedDict()

    def note(self, name: str, now: float) -> None:
        mark = hash(name)  # a name may be long; two with one hash in 10,000 never happen
        self._seen[mark] = now
        self._seen.move_to_end(mark)
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def count(self, now: float) -> int:
        while self._seen and next(iter(self._seen.values())) < now - self._window:
            self._seen.popitem(last=False)
        return len(self._seen)
