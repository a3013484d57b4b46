"""A tenant: what it may use, and how much."""

from __future__ import annotations

from dataclasses import dataclass

from foreword.serving.gateway.access.words import (
    BASE,
    covers,
    refuse,
    require_line,
    require_pattern,
    require_tenant,
)
from foreword.signing.trusted import tenant_of

NO_FALLBACK = "none"
MAX_GRANTS = 1_000
_MOST = 10**12


@dataclass(frozen=True)
class Limits:
    """What a tenant or a key may ask for; None: as much as there is."""

    requests: int | None = None
    """A minute."""
    tokens: int | None = None
    """A minute, of prompts and answers together."""
    streams: int | None = None
    """Requests that are being answered at the same time."""

    def __post_init__(self) -> None:
        for name in ("requests", "tokens", "streams"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _MOST:
                refuse(f"limits.{name}", f"expected 0 to {_MOST}, or no limit, got {value}")


UNLIMITED = Limits()


@dataclass(frozen=True)
class Tenant:
    """Its own prefixes are those named `tenant/...`; all others it needs a grant for."""

    name: str
    grants: tuple[str, ...] = ()
    """Other tenants' prefixes: `other/prefix`, or `other/*` for all of them, also later ones."""
    base: bool = False
    """May use the bare model."""
    fallback: str = NO_FALLBACK
    """What may answer if the prefix cannot be had: `none`, `base`, or `tenant/prefix`."""
    limits: Limits = UNLIMITED
    enabled: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        path = f"tenants.{self.name[:80]!r}"
        require_tenant(path, self.name)
        require_line(f"{path}.note", self.note)
        if len(self.grants) > MAX_GRANTS or len(set(self.grants)) != len(self.grants):
            refuse(f"{path}.grants", f"expected at most {MAX_GRANTS} grants, each once")
        for grant in self.grants:
            require_pattern(f"{path}.grants", grant)
        self._check_fallback(f"{path}.fallback")

    def may_use(self, name: str | None) -> bool:
        """Whether a prefix, or with None the bare model, is its own or was granted to it."""
        if name is None:
            return self.base
        return tenant_of(name) == self.name or any(covers(grant, name) for grant in self.grants)

    def _check_fallback(self, path: str) -> None:
        if self.fallback == NO_FALLBACK:
            return
        if self.fallback != BASE:
            require_pattern(path, self.fallback)
            if "/" not in self.fallback or self.fallback.endswith("/*"):
                refuse(path, f"expected none, base or tenant/prefix, got {self.fallback[:130]!r}")
        if not self.may_use(None if self.fallback == BASE else self.fallback):
            refuse(path, f"{self.name} may not use {self.fallback!r}, so it cannot fall back to it")
