"""`/admin/tenants`: who there is, and what each may use."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from foreword.serving.gateway.access.form import kill_to_json, tenant_to_json
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.admin.bodies import TenantBody
from foreword.serving.gateway.admin.changing import Visiting
from foreword.serving.gateway.admin.parts import AdminParts


def router(parts: AdminParts) -> APIRouter:
    routes = APIRouter(prefix="/admin/tenants", tags=["tenants"])

    @routes.get("")
    def list_tenants(visit: Visiting) -> dict[str, Any]:
        """All tenants by name."""
        table = visit.tag(parts.store.table())
        return {"tenants": [_shown(table, name) for name in sorted(table.tenants)]}

    @routes.get("/{name}")
    def get_tenant(name: str, visit: Visiting) -> dict[str, Any]:
        """One tenant."""
        return _shown(visit.tag(parts.store.table()), name)

    @routes.put("/{name}")
    def put_tenant(name: str, body: TenantBody, visit: Visiting) -> dict[str, Any]:
        """Make a tenant, or replace all of what it may; what is left out has its default."""
        tenant = body.tenant(name)
        return _shown(visit.change(parts, lambda table: table.with_tenant(tenant)), name)

    @routes.delete("/{name}", status_code=204)
    def delete_tenant(name: str, visit: Visiting) -> None:
        """Remove a tenant and its keys; its prefixes stay in the registry."""
        visit.change(parts, lambda table: table.without_tenant(name))

    return routes


def _shown(table: AccessTable, name: str) -> dict[str, Any]:
    kill = table.killed_tenants.get(name)
    return {
        "name": name,
        **tenant_to_json(table.tenant(name)),
        "killed": kill and kill_to_json(kill),
    }
