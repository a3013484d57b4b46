"""How many requests are worked on at once. One more is told so at once; nobody queues here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from foreword.serving.gateway.edge import refusals
from foreword.serving.gateway.edge.doors import PRINCIPAL
from foreword.serving.gateway.edge.types import App, Receive, Scope, Send


def admits(tenant: str, inside: Mapping[str, int], most: int) -> bool:
    """Whether one more request of a tenant is taken in, with so many inside per tenant.

    The first half of the places is for whoever comes. Of the other half no tenant gets more than
    its even share of all places, so that one that asks more than the others does not keep them out.
    """
    total = sum(inside.values())
    if total >= most:
        return False
    tenants = len(inside) + (tenant not in inside)
    return 2 * total < most or inside.get(tenant, 0) * tenants < most


@dataclass
class Overload:
    """Middleware behind the doors, which say whose request it is."""

    app: App
    most: int
    inside: Counter[str] = field(default_factory=Counter)
    """Requests by tenant; a tenant without one is not in it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Raises:
            Overloaded: at once, if there is no place for this tenant now.
        """
        tenant = scope[PRINCIPAL].tenant
        if not admits(tenant, self.inside, self.most):
            raise refusals.overloaded(self.inside.total())
        self.inside[tenant] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside[tenant] -= 1
            if not self.inside[tenant]:
                del self.inside[tenant]
