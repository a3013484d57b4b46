"""`/admin/releases`, `/residents`, `/drain`, `/usage`: what this replica knows, has and is told to do."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import Any, TypeVar

from fastapi import APIRouter

from foreword.artifact import Digest
from foreword.errors import NotFound
from foreword.serving.gateway.admin.bodies import Instant, PrefetchBody
from foreword.serving.gateway.admin.parts import AdminParts
from foreword.serving.gateway.routing.table import Named
from foreword.telemetry.usage import Total

_Part = TypeVar("_Part")


def router(parts: AdminParts) -> APIRouter:
    routes = APIRouter(prefix="/admin", tags=["replica"])

    @routes.get("/releases")
    def list_releases() -> dict[str, Any]:
        """What every name means here now, up to which entry of the journal, and since when."""
        seen = _here(parts.releases, "releases")
        table = seen.table
        names = {name: _release(table.names[name]) for name in table.order}
        age = seen.age if isfinite(seen.age) else None  # null: never; JSON has no infinity
        return {"seq": table.seq, "age_seconds": age, "names": names}

    @routes.get("/residents")
    def list_residents() -> dict[str, Any]:
        """The prefixes that this replica has in memory."""
        residents = _here(parts.host, "residents").residents()
        return {"residents": [{**asdict(each), "digest": str(each.digest)} for each in residents]}

    @routes.post("/residents/prefetch", status_code=202)
    def prefetch(body: PrefetchBody) -> dict[str, Any]:
        """Load prefixes before somebody asks for them; what is resident already is left as it is."""
        digests = tuple(Digest.parse(text) for text in body.digests)
        _here(parts.host, "residents").prefetch(digests)
        return {"digests": [str(digest) for digest in digests]}

    @routes.post("/drain", status_code=202)
    def drain() -> dict[str, Any]:
        """Take no new requests, finish those that are there, and stop."""
        _here(parts.drain, "drain")()
        return {"state": "draining"}

    @routes.get("/usage")
    def usage(tenant: str | None = None, since: Instant | None = None) -> dict[str, Any]:
        """What was used through this replica, by tenant and prefix; from the hour of `since` on."""
        used = _here(parts.usage, "usage")()
        return {
            "usage": [_total(each) for each in used.totals(tenant, since)],
            "damaged_lines": used.damaged,
        }

    return routes


def _here(part: _Part | None, name: str) -> _Part:
    if part is None:
        raise NotFound(f"this process has no {name} to show or change", code="admin.not_here")
    return part


def _total(total: Total) -> dict[str, Any]:
    told = {"tenant": total.tenant, "prefix": total.prefix, **asdict(total.counts)}
    seconds, cost = round(total.counts.seconds, 3), str(total.counts.cost)
    return {**told, "seconds": seconds, "cost": cost, "currency": total.currency}


def _release(named: Named) -> dict[str, Any]:
    release = named.release
    canary = release and release.canary
    return {
        "stable": str(release.stable) if release else None,
        "canary": str(canary) if canary else None,
        "share": release.share if release else 0.0,
        "versions": {version: str(digest) for version, digest in named.versions.items()},
    }
