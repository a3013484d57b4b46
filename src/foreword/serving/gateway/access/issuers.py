"""An OpenID Connect issuer whose tokens are believed, and for whom it may speak."""

from __future__ import annotations

import re
from dataclasses import dataclass

from foreword.serving.gateway.access.words import ALL, refuse, require_tenant

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""Asymmetric ones only (RFC 7518, RFC 8037): a key that verifies must not be one that signs."""
MAX_LEEWAY = 60
_URL = re.compile(
    r"https://[!-~]{1,500}|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?(/[!-~]{0,500})?"
)


@dataclass(frozen=True)
class Issuer:
    """Whose tokens count, and for which tenants."""

    url: str
    """As in `iss`."""
    audience: str
    """As in `aud`: this service's name at the issuer."""
    tenants: tuple[str, ...]
    """Tenants it may speak for, or `*`."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    jwks: str = ""
    """URL or file of its keys; empty: what its discovery document names."""
    tenant_claim: str = "tenant"
    scope_claim: str = "scope"
    leeway: int = 30
    """Seconds that its clock may differ from ours."""

    def __post_init__(self) -> None:
        path = f"issuers.{self.url[:80]!r}"
        if not is_safe_url(self.url):
            refuse(path, "expected an https URL, or http on this machine only")
        if self.jwks and not self.jwks.startswith("/") and not is_safe_url(self.jwks):
            refuse(f"{path}.jwks", "expected an https URL or the absolute path of a file")
        unknown = set(self.algorithms) - set(ALGORITHMS)
        if not self.algorithms or unknown:
            refuse(f"{path}.algorithms", f"expected some of {', '.join(ALGORITHMS)}")
        if not 0 <= self.leeway <= MAX_LEEWAY:
            refuse(f"{path}.leeway", f"expected 0 to {MAX_LEEWAY} seconds, got {self.leeway}")
        for name in ("audience", "tenant_claim", "scope_claim"):
            value = getattr(self, name)
            if not value or len(value) > 200 or not value.isprintable():
                refuse(f"{path}.{name}", "expected a text of 1 to 200 characters")
        if not self.tenants:
            refuse(f"{path}.tenants", "expected at least one tenant, or *")
        for tenant in sorted(set(self.tenants) - {ALL}):
            require_tenant(f"{path}.tenants", tenant)

    def speaks_for(self, tenant: str) -> bool:
        return ALL in self.tenants or tenant in self.tenants


def is_safe_url(url: object) -> bool:
    """Whether what comes from there comes from whom it names: https, or this machine."""
    return isinstance(url, str) and _URL.fullmatch(url) is not None
