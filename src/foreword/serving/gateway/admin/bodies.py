"""What the operator's API is sent: strict, and nothing it does not know."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from foreword.serving.gateway.access.tenants import MAX_GRANTS, NO_FALLBACK, Limits, Tenant

Count = Annotated[int, Field(ge=0, le=10**12, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Line = Annotated[str, Field(max_length=500)]
DigestText = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


def _written(value: object) -> object:
    """Refuse a number, which would be read as Unix time: the description speaks of RFC 3339."""
    if not isinstance(value, str) or "T" not in value.upper():
        raise ValueError("expected a time such as 2026-01-31T12:00:00Z")
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_written)]
Names = Annotated[list[str], Field(max_length=MAX_GRANTS)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorFacts(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Every refusal."""

    error: ErrorFacts


class LimitsBody(Body):
    """What is null or left out has no limit."""

    requests: Count | None = None
    tokens: Count | None = None
    streams: Count | None = None

    def limits(self) -> Limits:
        return Limits(self.requests, self.tokens, self.streams)


class TenantBody(Body):
    """All of a tenant; what is left out has its default."""

    grants: Names = []
    base: Flag = False
    fallback: str = NO_FALLBACK
    limits: LimitsBody = LimitsBody()
    enabled: Flag = True
    note: Line = ""

    def tenant(self, name: str) -> Tenant:
        return Tenant(
            name,
            tuple(self.grants),
            self.base,
            self.fallback,
            self.limits.limits(),
            self.enabled,
            self.note,
        )


class KeyBody(Body):
    """A key to issue. Without a tenant it is a key of this API."""

    tenant: str | None = None
    scopes: list[Literal["generate", "models", "admin"]] | None = None
    only: Names | None = None
    expires: Instant | None = None
    limits: LimitsBody = LimitsBody()
    note: Line = ""


class RotateBody(Body):
    overlap_seconds: Annotated[int, Field(ge=0, le=366 * 86_400, strict=True)] = 86_400
    """For so long both keys are believed."""

    def overlap(self) -> timedelta:
        return timedelta(seconds=self.overlap_seconds)


class KillBody(Body):
    reason: Annotated[str, Field(min_length=1, max_length=500)]


class PrefetchBody(Body):
    digests: Annotated[list[DigestText], Field(min_length=1, max_length=1_000)]
