"""The access table: who there is, what each may use, and what nobody may. A value and pure rules.

`store.py` keeps it in a file, `authorise.py` asks it for each request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from foreword.artifact import Digest
from foreword.errors import AuthError, NotFound
from foreword.serving.gateway.access.issuers import Issuer
from foreword.serving.gateway.access.keys import OPERATOR, KeyRecord, NewSecret, rotate
from foreword.serving.gateway.access.kills import Kill, require_target, targets_of
from foreword.serving.gateway.access.tenants import Limits, Tenant
from foreword.serving.gateway.access.words import refuse, require_tenant
from foreword.signing.trusted import tenant_of

_SECTIONS = ("tenants", "keys", "killed", "killed_tenants", "issuers")


@dataclass(frozen=True)
class AccessTable:
    """All of `access.json`."""

    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    keys: Mapping[str, KeyRecord] = field(default_factory=dict)
    """By id."""
    killed: Mapping[str, Kill] = field(default_factory=dict)
    """By name, `name@version` or digest."""
    killed_tenants: Mapping[str, Kill] = field(default_factory=dict)
    """Their keys are not believed and their prefixes are used by nobody, granted or not."""
    issuers: Mapping[str, Issuer] = field(default_factory=dict)
    """By URL: whose tokens are believed."""
    generation: int = 0
    """Grows by one with every change: give it as `expect` to change only what you saw."""

    def __post_init__(self) -> None:
        for section in _SECTIONS:
            object.__setattr__(self, section, MappingProxyType(dict(getattr(self, section))))
        for name, tenant in self.tenants.items():
            if name != tenant.name:
                refuse("tenants", f"{name[:80]!r} holds the tenant {tenant.name!r}")
        for key_id, key in self.keys.items():
            if key_id != key.id:
                refuse("keys", f"{key_id[:80]!r} holds the key {key.id}")
            if key.tenant != OPERATOR and key.tenant not in self.tenants:
                refuse(f"keys.{key.id}.tenant", f"there is no tenant {key.tenant!r}")
        for target in self.killed:
            require_target(target)
        for name in self.killed_tenants:
            require_tenant("killed_tenants", name)
        for url, issuer in self.issuers.items():
            if url != issuer.url:
                refuse("issuers", f"{url[:200]!r} holds the issuer {issuer.url!r}")

    def active(self, tenant: str) -> Tenant | None:
        """The tenant, if it is there and neither switched off nor killed."""
        known = self.tenants.get(tenant)
        if known is None or not known.enabled or tenant in self.killed_tenants:
            return None
        return known

    def require_active(self, tenant: str) -> Tenant:
        """
        Raises:
            AuthError: the tenant is gone, switched off or killed (`auth.tenant`).
        """
        known = self.active(tenant)
        if known is None:
            raise AuthError(
                f"the tenant {tenant!r} is switched off; ask whoever runs this service",
                code="auth.tenant",
            )
        return known

    def kill_of(self, name: str, version: str, digest: Digest) -> Kill | None:
        """Why a version is not used any more, or None: its tenant, name, version or digest is killed."""
        owner = self.killed_tenants.get(tenant_of(name))
        found = (self.killed.get(target) for target in targets_of(name, version, digest))
        return owner or next((kill for kill in found if kill), None)

    def limits_of(self, tenant: str, key_id: str) -> tuple[Limits, Limits]:
        """Of the tenant and of the key; those of whom is not in the table are `UNLIMITED`."""
        known, key = self.tenants.get(tenant), self.keys.get(key_id)
        return known.limits if known else Limits(), key.limits if key else Limits()

    def tenant(self, name: str) -> Tenant:
        """
        Raises:
            NotFound: there is no such tenant (`access.tenant_unknown`).
        """
        if name not in self.tenants:
            raise NotFound(
                f"there is no tenant {name[:80]!r}; see `foreword access tenant list`",
                code="access.tenant_unknown",
            )
        return self.tenants[name]

    def key(self, id: str) -> KeyRecord:
        """
        Raises:
            NotFound: there is no such key (`access.key_unknown`).
        """
        if id not in self.keys:
            raise NotFound(
                f"there is no key {id[:40]!r}; see `foreword access key list`",
                code="access.key_unknown",
            )
        return self.keys[id]

    def with_tenant(self, tenant: Tenant) -> AccessTable:
        """The table with a tenant, in the place of the one of that name."""
        return replace(self, tenants={**self.tenants, tenant.name: tenant})

    def without_tenant(self, name: str) -> AccessTable:
        """The table without a tenant and without its keys; a kill of it stays.

        Raises:
            NotFound: there is no such tenant (`access.tenant_unknown`).
        """
        self.tenant(name)
        return replace(
            self,
            tenants={other: each for other, each in self.tenants.items() if other != name},
            keys={key.id: key for key in self.keys.values() if key.tenant != name},
        )

    def with_key(self, key: KeyRecord) -> AccessTable:
        """The table with a key, in the place of the one with that id.

        Raises:
            NotFound: its tenant is not there (`access.tenant_unknown`).
        """
        if key.tenant != OPERATOR:
            self.tenant(key.tenant)
        return replace(self, keys={**self.keys, key.id: key})

    def with_successor(
        self, id: str, secret: NewSecret, now: datetime, overlap: timedelta
    ) -> AccessTable:
        """The table with a successor of a key, both believed for `overlap`.

        Raises:
            NotFound: there is no such key (`access.key_unknown`).
            UsageError: it has ended already (`access.key_ended`).
        """
        successor, old = rotate(self.key(id), secret, now, overlap)
        return self.with_key(old).with_key(successor)

    def with_revoked(self, id: str, now: datetime) -> AccessTable:
        """The table in which a key is believed no more; when it was revoked first stays.

        Raises:
            NotFound: there is no such key (`access.key_unknown`).
        """
        key = self.key(id)
        return self.with_key(replace(key, revoked=min(key.revoked or now, now)))

    def with_kill(self, target: str, kill: Kill) -> AccessTable:
        """The table with a prefix, version or digest switched off."""
        return replace(self, killed={**self.killed, target: kill})

    def without_kill(self, target: str) -> AccessTable:
        """The table with a prefix, version or digest switched on again.

        Raises:
            NotFound: it is not killed (`access.kill_unknown`).
        """
        return replace(self, killed=_without(self.killed, target))

    def with_killed_tenant(self, name: str, kill: Kill) -> AccessTable:
        """The table with a tenant switched off: its keys and its prefixes."""
        return replace(self, killed_tenants={**self.killed_tenants, name: kill})

    def without_killed_tenant(self, name: str) -> AccessTable:
        """The table with a tenant switched on again.

        Raises:
            NotFound: it is not killed (`access.kill_unknown`).
        """
        return replace(self, killed_tenants=_without(self.killed_tenants, name))

    def with_issuer(self, issuer: Issuer) -> AccessTable:
        """The table with an issuer, in the place of the one of that URL."""
        return replace(self, issuers={**self.issuers, issuer.url: issuer})

    def without_issuer(self, url: str) -> AccessTable:
        """The table without an issuer.

        Raises:
            NotFound: there is no such issuer (`access.issuer_unknown`).
        """
        if url not in self.issuers:
            raise NotFound(f"there is no issuer {url[:200]!r}", code="access.issuer_unknown")
        left = {other: each for other, each in self.issuers.items() if other != url}
        return replace(self, issuers=left)


def _without(kills: Mapping[str, Kill], target: str) -> dict[str, Kill]:
    if target not in kills:
        raise NotFound(f"{target[:130]!r} is not killed", code="access.kill_unknown")
    return {other: kill for other, kill in kills.items() if other != target}
