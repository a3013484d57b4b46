"""From a route and what was attached to the receipt that a response carries."""

from __future__ import annotations

from foreword.serving.contract import AdapterSet
from foreword.serving.gateway.routing.route import Route
from foreword.serving.wire.receipt import Receipt, StandIn


def receipt(route: Route, attached: AdapterSet) -> Receipt:
    """`attached`: what the engine said it used, which was compared with the route before."""
    fallback, prefix = route.fallback, route.prefix
    stand_in = None if fallback is None else StandIn(fallback.wanted, fallback.reason)
    if prefix is None:
        return Receipt(route.base, route.seq, digest=attached.prefix, fallback=stand_in)
    return Receipt(
        route.base,
        route.seq,
        prefix.name,
        prefix.version,
        attached.prefix,
        prefix.length,
        route.arm,
        stand_in,
    )
