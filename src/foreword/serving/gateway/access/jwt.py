"""Tokens of OpenID Connect issuers (RFC 7519), as far as the access table believes their issuers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from joserfc import jws, jwt
from joserfc.errors import (
    BadSignatureError,
    ExpiredTokenError,
    InvalidKeyIdError,
    JoseError,
)

from foreword.errors import AuthError
from foreword.serving.gateway.access.issuers import Issuer
from foreword.serving.gateway.access.jwks import RETRY, IssuerKeys
from foreword.serving.gateway.access.keys import ORDINARY, malformed
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.table import AccessTable

_MAX_TOKEN = 8 << 10


def believe_token(table: AccessTable, keys: IssuerKeys, token: str, now: datetime) -> Principal:
    """Who a token speaks for. It never gives the scope `admin`.

    Raises:
        AuthError: `auth.malformed`, `auth.token_issuer`, `auth.token_algorithm`, `auth.token_key`
            (with `retry_after`: the issuer's key is not here, yet), `auth.token_signature`,
            `auth.expired`, `auth.token_audience`, `auth.token_claims`, `auth.token_tenant`, `auth.tenant`.
    """
    header, claims = _unproved(token)
    issuer = _issuer(table, claims.get("iss"))
    if header.get("alg") not in issuer.algorithms:
        _refuse("algorithm", f"expected one signed with {' or '.join(issuer.algorithms)}")
    return _principal(table, issuer, _checked(issuer, _proved(issuer, keys, token), now))


def _unproved(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims as they are written, to find out whose keys would prove them."""
    if len(token) > _MAX_TOKEN:
        malformed()
    try:
        found = jws.extract_compact(token.encode())
        claims = json.loads(found.payload or b"")
    except (JoseError, ValueError, TypeError, RecursionError):
        malformed()
    if not isinstance(claims, dict):
        malformed()
    return found.headers(), claims


def _issuer(table: AccessTable, url: object) -> Issuer:
    issuer = table.issuers.get(url) if isinstance(url, str) else None
    if issuer is None:
        _refuse("issuer", "its issuer is not one whose tokens are believed here")
    return issuer


def _proved(issuer: Issuer, keys: IssuerKeys, token: str) -> dict[str, Any]:
    """The claims, signed by one of the issuer's keys with an algorithm that it uses."""
    known = keys.of(issuer)
    try:
        if known is None:
            raise InvalidKeyIdError("none are known")
        return jwt.decode(token, known, algorithms=issuer.algorithms).claims
    except InvalidKeyIdError as e:
        keys.want(issuer)
        raise AuthError(
            "the key that signed this token is not known here; if it is new, try again in a moment",
            code="auth.token_key",
            retry_after=RETRY,
        ) from e
    except BadSignatureError as e:
        _refuse("signature", "its signature is not that of its issuer", e)
    except (JoseError, ValueError, TypeError) as e:  # such as a key of another kind than `alg`
        _refuse("signature", "its signature cannot be verified with its issuer's key", e)


def _checked(issuer: Issuer, claims: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The claims, if they are meant for us and for now (RFC 7519, section 4.1)."""
    rules = jwt.JWTClaimsRegistry(
        now=int(now.timestamp()),
        leeway=issuer.leeway,
        iss={"essential": True, "value": issuer.url},
        sub={"essential": True},
        exp={"essential": True},
    )
    audience = claims.get("aud")
    if issuer.audience not in (audience if isinstance(audience, list) else [audience]):
        _refuse("audience", f"it is not meant for {issuer.audience!r}")
    try:
        rules.validate(claims)
    except ExpiredTokenError as e:
        raise AuthError("this token has expired; get a new one", code="auth.expired") from e
    except JoseError as e:
        _refuse("claims", "one of the claims iss, sub, aud, exp, nbf, iat is missing or wrong", e)
    return claims


def _principal(table: AccessTable, issuer: Issuer, claims: dict[str, Any]) -> Principal:
    tenant = claims.get(issuer.tenant_claim)
    if not isinstance(tenant, str) or not issuer.speaks_for(tenant):
        _refuse("tenant", f"its claim {issuer.tenant_claim!r} names no tenant it may speak for")
    table.require_active(tenant)
    given = claims.get(issuer.scope_claim)
    words = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
    scopes = frozenset(scope for scope in ORDINARY if scope in words)
    return Principal(tenant, _key_id(issuer, claims["sub"]), scopes, None, _end(issuer, claims))


def _key_id(issuer: Issuer, subject: str) -> str:
    """The same for all tokens of a subject; it names nobody to who reads a log."""
    return f"jwt:{hashlib.sha256(json.dumps([issuer.url, subject]).encode()).hexdigest()[:16]}"


def _end(issuer: Issuer, claims: dict[str, Any]) -> datetime:
    try:
        return datetime.fromtimestamp(claims["exp"], UTC) + timedelta(seconds=issuer.leeway)
    except (OverflowError, ValueError, OSError) as e:
        _refuse("claims", "its claim 'exp' is beyond any date", e)


def _refuse(kind: str, reason: str, cause: Exception | None = None) -> NoReturn:
    raise AuthError(f"this token is not believed: {reason}", code=f"auth.token_{kind}") from cause
