"""`/admin/kills`: switch a prefix, a version or a tenant off at once, and on again."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from foreword.serving.gateway.access.form import kill_to_json
from foreword.serving.gateway.access.kills import Kill
from foreword.serving.gateway.admin.bodies import KillBody
from foreword.serving.gateway.admin.changing import Visit, Visiting
from foreword.serving.gateway.admin.parts import AdminParts


def router(parts: AdminParts) -> APIRouter:
    routes = APIRouter(prefix="/admin/kills", tags=["kills"])

    def made(body: KillBody, visit: Visit) -> Kill:
        return Kill(body.reason, visit.operator.key_id, parts.now())

    @routes.get("")
    def list_kills(visit: Visiting) -> dict[str, Any]:
        """Everything that is switched off, and why."""
        table = visit.tag(parts.store.table())
        return {
            "prefixes": {target: kill_to_json(kill) for target, kill in table.killed.items()},
            "tenants": {name: kill_to_json(kill) for name, kill in table.killed_tenants.items()},
        }

    @routes.put("/prefixes/{target:path}")
    def kill_prefix(target: str, body: KillBody, visit: Visiting) -> dict[str, Any]:
        """Switch off `tenant/prefix`, `tenant/prefix@1.2.3` or `sha256:...`, for everybody."""
        kill = made(body, visit)
        visit.change(parts, lambda table: table.with_kill(target, kill), body.reason)
        return {"target": target, **kill_to_json(kill)}

    @routes.delete("/prefixes/{target:path}", status_code=204)
    def unkill_prefix(target: str, visit: Visiting) -> None:
        """Switch it on again."""
        visit.change(parts, lambda table: table.without_kill(target))

    @routes.put("/tenants/{name}")
    def kill_tenant(name: str, body: KillBody, visit: Visiting) -> dict[str, Any]:
        """Switch off a tenant's keys, and its prefixes for everybody."""
        kill = made(body, visit)
        visit.change(parts, lambda table: table.with_killed_tenant(name, kill), body.reason)
        return {"tenant": name, **kill_to_json(kill)}

    @routes.delete("/tenants/{name}", status_code=204)
    def unkill_tenant(name: str, visit: Visiting) -> None:
        """Switch it on again."""
        visit.change(parts, lambda table: table.without_killed_tenant(name))

    return routes
