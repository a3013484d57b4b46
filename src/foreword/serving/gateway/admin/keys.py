"""`/admin/keys`: issue, look at, rotate and revoke keys. A key's text is in one answer and nowhere else."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from foreword.serving.gateway.access.form import key_to_json
from foreword.serving.gateway.access.keys import OPERATOR, KeyRecord, draw, issue
from foreword.serving.gateway.admin.bodies import KeyBody, RotateBody
from foreword.serving.gateway.admin.changing import Visiting
from foreword.serving.gateway.admin.parts import AdminParts


def router(parts: AdminParts) -> APIRouter:
    routes = APIRouter(prefix="/admin/keys", tags=["keys"])

    @routes.get("")
    def list_keys(visit: Visiting, tenant: str | None = None) -> dict[str, Any]:
        """All keys, or those of a tenant, in the order in which they were made."""
        table = visit.tag(parts.store.table())
        wanted = (key for key in table.keys.values() if tenant in (None, key.tenant))
        return {"keys": [_shown(key) for key in sorted(wanted, key=lambda key: key.created)]}

    @routes.get("/{id}")
    def get_key(id: str, visit: Visiting) -> dict[str, Any]:
        """One key, without anything that helps to use it."""
        return _shown(visit.tag(parts.store.table()).key(id))

    @routes.post("", status_code=201)
    def issue_key(body: KeyBody, visit: Visiting) -> dict[str, Any]:
        """A new key; `key` is shown this once."""
        text, record = issue(
            body.tenant or OPERATOR,
            parts.now(),
            scopes=frozenset(body.scopes) if body.scopes is not None else None,
            only=tuple(body.only) if body.only is not None else None,
            expires=body.expires,
            limits=body.limits.limits(),
            note=body.note,
        )
        table = visit.change(parts, lambda table: table.with_key(record))
        return {"key": text, **_shown(table.key(record.id))}

    @routes.post("/{id}/rotate", status_code=201)
    def rotate_key(id: str, body: RotateBody, visit: Visiting) -> dict[str, Any]:
        """A successor that may do the same. The old key is believed until the overlap is over."""
        secret, now = draw(), parts.now()
        table = visit.change(
            parts, lambda table: table.with_successor(id, secret, now, body.overlap())
        )
        replaced = _shown(table.key(id))
        return {"key": secret.text, **_shown(table.key(secret.id)), "replaces": replaced}

    @routes.delete("/{id}")
    def revoke_key(id: str, visit: Visiting) -> dict[str, Any]:
        """Believe a key no more. Its record stays, so that logs can still be read."""
        now = parts.now()
        return _shown(visit.change(parts, lambda table: table.with_revoked(id, now)).key(id))

    return routes


def _shown(key: KeyRecord) -> dict[str, Any]:
    return {"id": key.id, **key_to_json(key)}
