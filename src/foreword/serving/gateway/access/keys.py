"""API keys: `fwk_<id>_<secret>`, of which only the sha256 is kept.

A secret has 256 random bits, so a plain hash cannot be searched through and a slow one is not needed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

from foreword.errors import AuthError, UsageError
from foreword.serving.gateway.access.principal import Principal, Scope
from foreword.serving.gateway.access.tenants import UNLIMITED, Limits
from foreword.serving.gateway.access.words import (
    refuse,
    require_line,
    require_moment,
    require_pattern,
    require_tenant,
)

if TYPE_CHECKING:
    from foreword.serving.gateway.access.table import AccessTable

OPERATOR = ""
"""The tenant of admin keys: they speak for nobody's prefixes."""
ADMIN: frozenset[Scope] = frozenset({"admin"})
ORDINARY: frozenset[Scope] = frozenset({"generate", "models"})

_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([\x21-\x7e]+) *")
_TEXT = re.compile(r"fwk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_ID = re.compile(r"[0-9a-f]{16}")
_HASH = re.compile(r"[0-9a-f]{64}")
MAX_LIFE = timedelta(days=36_500)
_MAX_HEADER = 16 << 10
_NOBODY = hashlib.sha256(secrets.token_bytes(32)).hexdigest()
"""Compared with when there is no such key, so that this takes as long as a wrong secret."""


@dataclass(frozen=True)
class KeyRecord:
    """What is kept of a key. Nothing here helps to use it."""

    id: str
    tenant: str
    """Or `OPERATOR`, for keys of the admin API only."""
    sha256: str = field(repr=False)
    """Of the secret's text, hexadecimal."""
    scopes: frozenset[Scope]
    created: datetime
    only: tuple[str, ...] | None = None
    """Limited to these prefixes, `tenant/*` or `base`; None: all that its tenant may use."""
    expires: datetime | None = None
    """The first moment at which it is not believed any more."""
    revoked: datetime | None = None
    limits: Limits = UNLIMITED
    """Of this key, besides those of its tenant."""
    note: str = ""

    def __post_init__(self) -> None:
        path = f"keys.{self.id[:80]!r}"
        if not _ID.fullmatch(self.id) or not _HASH.fullmatch(self.sha256):
            refuse(path, "expected an id of 16 and a sha256 of 64 lower-case hexadecimal digits")
        self._check_scopes(path)
        for name in self.only or ():
            require_pattern(f"{path}.only", name)
        if self.only is not None and not 1 <= len(self.only) <= 1_000:
            refuse(f"{path}.only", "expected 1 to 1000 names; leave it out for all of them")
        for when in (self.created, self.expires, self.revoked):
            require_moment(path, when)
        if self.expires is not None and self.expires - self.created > MAX_LIFE:
            refuse(f"{path}.expires", f"expected at most {MAX_LIFE.days} days from now")
        require_line(f"{path}.note", self.note)

    def _check_scopes(self, path: str) -> None:
        if self.tenant != OPERATOR:
            require_tenant(f"{path}.tenant", self.tenant)
        allowed = ADMIN if self.tenant == OPERATOR else ORDINARY
        if not self.scopes or not self.scopes <= allowed:
            refuse(f"{path}.scopes",
                   f"expected some of {', '.join(sorted(allowed))}, got "
                   f"{', '.join(sorted(self.scopes)) or 'none'}; an admin key belongs to no tenant, "
                   "and a tenant's key is no admin key")  # fmt: skip
        if self.tenant == OPERATOR and self.only is not None:
            refuse(f"{path}.only", "an admin key uses no prefixes")

    def ended(self, now: datetime) -> str | None:
        """`revoked`, `expired`, or None if it counts."""
        if self.revoked is not None and now >= self.revoked:
            return "revoked"
        if self.expires is not None and now >= self.expires:
            return "expired"
        return None


@dataclass(frozen=True)
class NewSecret:
    """A key that was drawn, and is nowhere yet."""

    id: str
    text: str = field(repr=False)
    """What its owner gets, once."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.split("_", 2)[2].encode()).hexdigest()


def draw() -> NewSecret:
    key_id = secrets.token_hex(8)
    return NewSecret(key_id, f"fwk_{key_id}_{secrets.token_urlsafe(32)}")


def issue(
    tenant: str,
    now: datetime,
    *,
    scopes: frozenset[Scope] | None = None,
    only: tuple[str, ...] | None = None,
    expires: datetime | None = None,
    limits: Limits = UNLIMITED,
    note: str = "",
) -> tuple[str, KeyRecord]:
    """A new key: its text, which is shown once and kept nowhere, and its record.

    Raises:
        ConfigError: a tenant, scope or name that cannot be (`access.value`).
    """
    secret = draw()
    record = KeyRecord(
        secret.id,
        tenant,
        secret.sha256,
        scopes if scopes is not None else ADMIN if tenant == OPERATOR else ORDINARY,
        now,
        only=only,
        expires=expires,
        limits=limits,
        note=note,
    )
    return secret.text, record


def rotate(
    old: KeyRecord, secret: NewSecret, now: datetime, overlap: timedelta
) -> tuple[KeyRecord, KeyRecord]:
    """A successor that may do the same for as long as `old` could, and `old` with an end.

    Both are believed for `overlap`, so that nobody has to change them at one moment.

    Raises:
        UsageError: the key has ended already (`access.key_ended`).
    """
    ended = old.ended(now)
    if ended:
        raise UsageError(f"the key {old.id} is {ended}; issue a new one", code="access.key_ended")
    end = now + overlap
    life = old.expires - old.created if old.expires else None
    successor = replace(
        old,
        id=secret.id,
        sha256=secret.sha256,
        created=now,
        expires=now + life if life else None,
    )
    return successor, replace(old, expires=min(old.expires or end, end))


def bearer(header: str | None) -> str:
    """The credential of an `Authorization` header (RFC 6750, section 2.1).

    Raises:
        AuthError: there is none (`auth.missing`) or it has another form (`auth.malformed`).
    """
    if not header:
        raise AuthError(
            "a key is needed: send the header `Authorization: Bearer fwk_...`", code="auth.missing"
        )
    found = _BEARER.fullmatch(header) if len(header) <= _MAX_HEADER else None
    if found is None:
        malformed()
    return found[1]


def malformed() -> NoReturn:
    """Nothing of what came is shown: it may be a secret with a typing error."""
    raise AuthError(
        "expected `Authorization: Bearer` and a key fwk_<id>_<secret> as it was issued",
        code="auth.malformed",
    )


def believe(table: AccessTable, header: str | None, now: datetime) -> Principal:
    """Who an `Authorization` header with an API key speaks for.

    Raises:
        AuthError: `auth.missing`, `auth.malformed`; `auth.unknown` for an unknown id and a wrong
            secret alike, after the same work; and to who has the secret `auth.revoked`,
            `auth.expired`, `auth.tenant` (its tenant is gone or switched off).
    """
    found = _TEXT.fullmatch(bearer(header))
    if found is None:
        malformed()
    record = _proved(table.keys, found[1], found[2])
    ended = record.ended(now)
    if ended:
        raise AuthError(
            f"the key {record.id} was revoked or expired; use its successor", code=f"auth.{ended}"
        )
    if record.tenant != OPERATOR:
        table.require_active(record.tenant)
    return Principal(record.tenant, record.id, record.scopes, record.only, record.expires)


def require_scope(principal: Principal, scope: Scope) -> None:
    """
    Raises:
        AuthError: the key was not issued for this (`auth.scope`).
    """
    if scope not in principal.scopes:
        raise AuthError(
            f"the key {principal.key_id} was not issued for `{scope}`; use another key",
            code="auth.scope",
        )


def _proved(keys: Mapping[str, KeyRecord], id: str, secret: str) -> KeyRecord:
    """The key's record, if the secret is its own. Always one hash and one comparison."""
    record = keys.get(id)
    expected = record.sha256 if record else _NOBODY
    same = hmac.compare_digest(hashlib.sha256(secret.encode()).hexdigest(), expected)
    if not same or record is None:
        raise AuthError("this key is not known here", code="auth.unknown")
    return record
