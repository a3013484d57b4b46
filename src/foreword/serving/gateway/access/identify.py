"""Who asks: an API key or, where issuers are believed, a token."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from foreword.serving.gateway.access.keys import bearer, believe
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.table import AccessTable

if TYPE_CHECKING:
    from foreword.serving.gateway.access.jwks import IssuerKeys


def identify(
    table: AccessTable, header: str | None, now: datetime, issuer_keys: IssuerKeys | None = None
) -> Principal:
    """Who an `Authorization` header speaks for.

    Raises:
        AuthError: as `keys.believe` and `jwt.believe_token`.
    """
    if issuer_keys is None or not table.issuers or header is None or "." not in header:
        return believe(table, header, now)
    from foreword.serving.gateway.access.jwt import believe_token  # needs the extra `oidc`

    return believe_token(table, issuer_keys, bearer(header), now)
