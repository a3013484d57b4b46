"""`FairQueue`: who waits, and who is next.

Tenants share the engine by the tokens they were served (`shares.py`). Of one tenant's items the higher
priority goes first, then the earlier; a priority takes nothing from other tenants.

The order follows from arrivals, priorities and charges alone. What an item is charged when it is taken
(`cost`) counts every token of its prompt, also those whose keys and values are reused: else the order
would tell one tenant what is in another's cache.

Who cannot start now is passed over, and the next is offered, of the same tenant or of another. So that
a stream of small requests does not keep a large one out for ever, an item that stood first and found no
room for `starvation` seconds holds the door: it alone is offered until it fits. Only the first item of
a pass that finds no room gets its clock started, and one of a tenant at a time, so nobody holds the door
before its turn by fairness and no tenant can line up behind it: holding the door adds at most the cost
of one item to the bound that `shares.py` gives. A full batch is no reason to hold a door: stop there.
An item that no empty engine could hold must be refused before it is put here.

    for item in queue.candidates(now):
        if ...the batch is full:               break
        if ...its prefix is still loading...:  continue
        if ...no memory for it...:             queue.no_room(item.id, now)
        else:                                  queue.take(item.id, now)

One thread uses it.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heapreplace
from typing import Generic, NamedTuple, Protocol, TypeVar

from foreword.errors import ConfigError, DeadlineExceeded, EngineFailed, Overloaded, UsageError
from foreword.serving.engine.waiting.shares import Shares

_RATE_OVER = 64
_SOONEST, _LATEST = 1.0, 60.0


class Waiting(Protocol):
    """What the queue must know about an item."""

    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def cost(self) -> int:
        """Tokens its tenant is charged when it is taken: all of its prompt."""
        ...


Item = TypeVar("Item", bound=Waiting)


@dataclass(frozen=True)
class Limits:
    """How much may wait, and how long and how far a pass looks."""

    total: int = 10_000
    per_tenant: int = 1_000
    reach: int = 32
    """Of each tenant's line, this many are offered in a pass: it bounds what a pass can cost."""
    starvation: float = 1.0
    """Seconds after which an item that stood first and found no room holds the door."""

    def __post_init__(self) -> None:
        if min(self.total, self.per_tenant, self.reach) < 1 or not self.starvation >= 0:
            raise ConfigError(
                f"expected limits of at least 1 and a starvation time of at least 0 s, got {self}",
                code="config.queue",
            )


class _Key(NamedTuple):
    """Sorts one tenant's line."""

    falling_priority: int
    arrival: int
    id: str


@dataclass(frozen=True)
class _Placed(Generic[Item]):
    item: Item
    key: _Key

    @property
    def due(self) -> tuple[float, str] | None:
        deadline = self.item.deadline
        return None if deadline is None else (deadline, self.item.id)


class FairQueue(Generic[Item]):
    """Waiting items in fair order; `weights` are shares by tenant, 1 where none is given."""

    def __init__(
        self, limits: Limits | None = None, weights: Mapping[str, float] | None = None
    ) -> None:
        self.limits = limits or Limits()
        self._shares = Shares(weights)
        self._arrivals = itertools.count()
        self._placed: dict[str, _Placed[Item]] = {}
        # Sorted lists: bisect finds a place in O(log n); moving the at most `total` pointers behind
        # it is a memmove of some microseconds, and walking them needs no copy and no dead entries.
        self._lines: dict[str, list[_Key]] = {}
        self._due: list[tuple[float, str]] = []
        self._no_room: dict[str, tuple[float, str]] = {}  # tenant: since when, who; oldest first
        self._no_room_in_pass = False
        self._taken: deque[float] = deque(maxlen=_RATE_OVER)

    def __len__(self) -> int:
        return len(self._placed)

    def __contains__(self, id: str) -> bool:
        return id in self._placed

    def by_tenant(self) -> dict[str, int]:
        """How many items of each tenant wait; tenants with none are absent."""
        return {tenant: len(line) for tenant, line in self._lines.items()}

    def service(self, tenant: str) -> float:
        """Tokens per weight that a tenant was charged, as `shares.py` counts."""
        return self._shares.service(tenant)

    def put(self, item: Item, now: float) -> None:
        """Let an item wait.

        Raises:
            UsageError: an item with this id waits already.
            DeadlineExceeded: its deadline has passed.
            Overloaded: the queue or the tenant's part of it is full.
        """
        if item.id in self._placed:
            raise UsageError(
                f"a request {item.id[:80]!r} is waiting already; give every request an id of its own",
                code="request.id_in_use",
            )
        if not _in_time(item, now):
            raise DeadlineExceeded(
                f"the deadline of request {item.id[:80]!r} had passed when it came; give it more time"
            )
        self._check_room(item.tenant, now)
        placed = _Placed(item, _Key(-item.priority, next(self._arrivals), item.id))
        self._placed[item.id] = placed
        insort(self._lines.setdefault(item.tenant, []), placed.key)
        if placed.due:
            insort(self._due, placed.due)
        self._shares.join(item.tenant)

    def candidates(self, now: float) -> Iterator[Item]:
        """Offer items in fair order, each at most once, and none past its deadline.

        The queue may be changed between two items; what is taken moves its tenant back in the order.
        """
        self._no_room_in_pass = False
        first = self._starving(now)
        if first is not None:
            yield first
            if self._no_room_in_pass:
                return
        for item in self._in_fair_order():
            if item is not first and _in_time(item, now):
                yield item

    def no_room(self, id: str, now: float) -> None:
        """Say that the item just offered found no room; if it was the first, its clock starts.

        Raises:
            EngineFailed: no such item waits.
        """
        tenant = self._waiting(id).tenant
        if not self._no_room_in_pass:
            self._no_room_in_pass = True
            self._no_room.setdefault(tenant, (now, id))

    def take(self, id: str, now: float) -> Item:
        """Remove an item that starts now, and charge its tenant for it.

        Raises:
            EngineFailed: no such item waits.
        """
        item = self._waiting(id)
        self.cancel(id)
        self._shares.charge(item.tenant, item.cost)
        self._taken.append(now)
        return item

    def charge(self, tenant: str, tokens: int) -> None:
        """Count tokens that were generated for a tenant.

        Raises:
            EngineFailed: less than no tokens.
        """
        self._shares.charge(tenant, tokens)

    def cancel(self, id: str) -> Item | None:
        """Remove an item that will not be served; None if it does not wait."""
        placed = self._placed.pop(id, None)
        if placed is None:
            return None
        tenant = placed.item.tenant
        line = self._lines[tenant]
        del line[bisect_left(line, placed.key)]
        if not line:
            del self._lines[tenant]
            self._shares.leave(tenant)
        if placed.due:
            del self._due[bisect_left(self._due, placed.due)]
        if self._no_room.get(tenant, (0.0, None))[1] == id:
            del self._no_room[tenant]
        return placed.item

    def expire(self, now: float) -> list[Item]:
        """Remove and return the items whose deadline has come, the earliest first."""
        late = list(itertools.takewhile(lambda due: due[0] <= now, self._due))
        return [item for _, name in late if (item := self.cancel(name)) is not None]

    def clear(self) -> list[Item]:
        """Remove and return everything that waits."""
        return [item for name in list(self._placed) if (item := self.cancel(name)) is not None]

    def check_integrity(self) -> None:
        """Compare every list with the items.

        Raises:
            EngineFailed: one of them lost, doubled or misplaced an item.
        """
        self._shares.check_integrity()
        placed = self._placed.values()
        keys = sorted((p.item.tenant, p.key) for p in placed)
        agrees = (
            keys == [(t, key) for t, line in sorted(self._lines.items()) for key in line],
            self._due == sorted(p.due for p in placed if p.due),
            self._lines.keys() == {place.tenant for place in self._shares.order()},
            all(
                self._placed[name].item.tenant == tenant
                for tenant, (_, name) in self._no_room.items()
            ),
        )
        if not all(agrees):
            raise EngineFailed(
                f"the lists of a queue of {len(self)} requests do not agree: lines, deadlines, tenants "
                f"and waiting times are {agrees}",
                code="serving.queue",
            )

    def _in_fair_order(self) -> Iterator[Item]:
        heap = self._shares.order()  # sorted, and so a heap already
        passed: dict[str, _Key] = {}
        while heap:
            tenant = heap[0].tenant
            place = self._shares.place(tenant)
            if place is None:
                heappop(heap)
            elif place != heap[0]:  # it was charged meanwhile, so it stands further back
                heapreplace(heap, place)
            elif (key := self._after(tenant, passed.get(tenant))) is None:
                heappop(heap)
            else:
                passed[tenant] = key
                yield self._placed[key.id].item

    def _after(self, tenant: str, passed: _Key | None) -> _Key | None:
        """The next of a tenant's line behind `passed`, within reach."""
        line = self._lines[tenant]
        index = 0 if passed is None else bisect_right(line, passed)
        return line[index] if index < min(len(line), self.limits.reach) else None

    def _waiting(self, id: str) -> Item:
        placed = self._placed.get(id)
        if placed is None:
            raise EngineFailed(
                f"expected a waiting request, got {id[:80]!r}; this is a fault in the engine",
                code="serving.queue",
            )
        return placed.item

    def _starving(self, now: float) -> Item | None:
        """Who has waited longest for room, if that is too long."""
        since, name = next(iter(self._no_room.values()), (now, None))
        if name is None or now - since < self.limits.starvation:
            return None
        item = self._placed[name].item
        return item if _in_time(item, now) else None

    def _check_room(self, tenant: str, now: float) -> None:
        own, total = len(self._lines.get(tenant, ())), len(self)
        if total >= self.limits.total:
            who, ahead = f"{total} requests are waiting, and no more may", total
        elif own >= self.limits.per_tenant:
            who = f"tenant {tenant[:80]!r} has {own} requests waiting, and one tenant may have no more"
            ahead = min(total, own * len(self._lines))  # the others' share is served in between
        else:
            return
        seconds = self._seconds_to_take(ahead, now)
        raise Overloaded(
            f"{who}; try again in {seconds:.0f} s", code="serving.queue_full", retry_after=seconds
        )

    def _seconds_to_take(self, items: int, now: float) -> float:
        """How long the last `_RATE_OVER` takes say it will be until `items` more are taken."""
        if not self._taken:
            return _SOONEST
        seconds = items * (now - self._taken[0]) / len(self._taken)
        return min(_LATEST, max(_SOONEST, seconds))


def _in_time(item: Waiting, now: float) -> bool:
    return item.deadline is None or item.deadline > now
