"""May this key use this prefix? Asked for every request, whatever is cached."""

from __future__ import annotations

from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.words import BASE, covers


def allowed(table: AccessTable, principal: Principal, name: str | None) -> bool:
    """Whether a prefix, or with None the bare model, may answer this principal.

    It needs all of: the tenant is active now, the prefix is its own or granted to it, and the key is
    not limited to others. A killed prefix is still allowed; `AccessTable.kill_of` stops it for everybody.
    """
    tenant = table.active(principal.tenant)
    return tenant is not None and tenant.may_use(name) and _within(principal.only, name)


def _within(only: tuple[str, ...] | None, name: str | None) -> bool:
    """Whether a key that is limited to some names covers this one."""
    if only is None:
        return True
    if name is None:
        return BASE in only
    return any(covers(pattern, name) for pattern in only)
