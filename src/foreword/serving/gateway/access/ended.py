"""What the access table says of requests that were let in before it changed."""

from __future__ import annotations

from foreword.artifact import Digest
from foreword.errors import AuthError, ForewordError
from foreword.serving.gateway.access.kills import killed
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.table import AccessTable

Version = tuple[str, str, Digest]
"""Name, version and digest."""


def why_ended(
    table: AccessTable, principal: Principal, used: Version | None
) -> ForewordError | None:
    """Why a request may not go on; None if it may. `used` is None for the bare model.

    Its tenant is gone, disabled or killed, its key was revoked, or what it uses was killed. A key that
    has expired meanwhile, and a grant that was taken back, end nothing that was begun before.
    """
    try:
        table.require_active(principal.tenant)
    except AuthError as error:
        return error
    key = table.keys.get(principal.key_id)
    if key is not None and key.revoked is not None:
        return AuthError(f"the key {key.id} was revoked meanwhile", code="auth.revoked")
    if used is not None and table.kill_of(*used):
        return killed(*used[:2])
    return None


def inactive(table: AccessTable) -> frozenset[str]:
    """Tenants that are killed or disabled."""
    named = {*table.tenants, *table.killed_tenants}
    return frozenset(name for name in named if table.active(name) is None)


def newly_gone(before: AccessTable, after: AccessTable) -> frozenset[str]:
    """Tenants that were active, or not known of, and are killed, disabled or removed now."""
    return (inactive(after) | (before.tenants.keys() - after.tenants.keys())) - inactive(before)
