"""`Shares`: how much service each tenant had, and so who is next.

The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024),
Algorithm 2. Every token a tenant is served adds 1 / weight to its counter; of the tenants that wait, the
one with the lowest counter goes first. A tenant that had nothing waiting comes back at no less than the
lowest counter of those that wait (or that waited last), so being idle earns nothing.

For two tenants that both wait all the time, and whose next item can start when its turn comes, service
per weight differs over any stretch by at most

    2 * (largest charge at admission + tokens the running batch can still generate) / lowest weight

whatever they ask for (their Theorem 4.4, with prompt and generated tokens counted alike). One thread
uses it.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import NamedTuple

from foreword.errors import ConfigError, EngineFailed

_REMEMBERED = 1024


class Place(NamedTuple):
    """Where a waiting tenant stands; they sort into the fair order."""

    service: float
    since: int
    """Of equals, who began to wait earlier."""
    tenant: str


class Shares:
    """Counters of service, in tokens per weight; a weight that is not given is 1.

    Raises:
        ConfigError: a weight is not a number above zero.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        for tenant, weight in self._weights.items():
            if not (math.isfinite(weight) and weight > 0):
                raise ConfigError(
                    f"expected a weight above 0 for tenant {tenant[:80]!r}, got {weight}",
                    code="config.tenant_weight",
                )
        self._service: dict[str, float] = {}
        self._places: dict[str, Place] = {}
        # Sorted. bisect finds a place in O(log n); moving the pointers behind it is a memmove.
        self._order: list[Place] = []
        self._last_waited = ""
        self._arrivals = itertools.count()
        self._forget_above = _REMEMBERED

    def order(self) -> list[Place]:
        """The waiting tenants, least served first."""
        return list(self._order)

    def place(self, tenant: str) -> Place | None:
        """Where a tenant stands now; None if it does not wait."""
        return self._places.get(tenant)

    def service(self, tenant: str) -> float:
        """A tenant's counter; one that is not known counts from where newcomers start."""
        return self._service.get(tenant, self._floor())

    def join(self, tenant: str) -> None:
        """A tenant begins to wait. One that waits already keeps its place."""
        if tenant not in self._places:
            self._service[tenant] = max(self.service(tenant), self._floor())
            self._stand(Place(self._service[tenant], next(self._arrivals), tenant))

    def leave(self, tenant: str) -> None:
        """A tenant has nothing waiting any more; its counter stays."""
        self._step_out(self._places[tenant])
        self._last_waited = tenant
        if len(self._service) > self._forget_above:
            self._forget()

    def charge(self, tenant: str, tokens: int) -> None:
        """Count tokens that a tenant was served, whether it waits or not.

        Raises:
            EngineFailed: less than no tokens.
        """
        if tokens < 0:
            raise EngineFailed(
                f"expected 0 tokens or more, got {tokens}; this is a fault in the engine",
                code="serving.queue",
            )
        served = self.service(tenant) + tokens / self._weights.get(tenant, 1.0)
        self._service[tenant] = served
        if place := self._places.get(tenant):
            self._step_out(place)
            self._stand(place._replace(service=served))

    def check_integrity(self) -> None:
        """Compare the order with the counters.

        Raises:
            EngineFailed: they do not agree.
        """
        if self._order != sorted(self._places.values()) or any(
            place.tenant != tenant or place.service != self._service.get(tenant)
            for tenant, place in self._places.items()
        ):
            raise EngineFailed(
                f"the order of {len(self._order)} waiting tenants does not agree with their counters",
                code="serving.queue",
            )

    def _floor(self) -> float:
        """Where newcomers start. It never falls: who leaves last had at least the lowest counter."""
        if self._order:
            return self._order[0].service
        return self._service.get(self._last_waited, 0.0)

    def _stand(self, place: Place) -> None:
        insort(self._order, place)
        self._places[place.tenant] = place

    def _step_out(self, place: Place) -> None:
        del self._order[bisect_left(self._order, place)]
        del self._places[place.tenant]

    def _forget(self) -> None:
        """Drop idle tenants whose counter would be lifted to the floor anyway."""
        floor = self._floor()
        self._service = {
            tenant: service
            for tenant, service in self._service.items()
            if service > floor or tenant in self._places or tenant == self._last_waited
        }
        self._forget_above = 2 * len(self._service) + _REMEMBERED
