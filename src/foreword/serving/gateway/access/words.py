"""Checks that tenants, keys, kills and issuers share, and how a refusal of one of them reads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NoReturn

from foreword.artifact.manifest import check_name
from foreword.errors import ArtifactError, ConfigError
from foreword.signing.trusted import check_tenant, tenant_of

BASE = "base"
"""How the bare model is written where a prefix could stand."""
ALL = "*"
_MAX_LINE = 500


def refuse(path: str, reason: str, cause: Exception | None = None) -> NoReturn:
    """Raise the `ConfigError` (`access.value`) for one place of the access table."""
    raise ConfigError(f"access table, {path}: {reason}", code="access.value") from cause


def require_tenant(path: str, name: str) -> None:
    _require(path, check_tenant, name)


def require_pattern(path: str, pattern: str) -> None:
    """`tenant/prefix`, or `tenant/*` for all of a tenant's prefixes."""
    tenant, slash, prefix = pattern.partition("/")
    if slash and prefix == ALL:
        require_tenant(path, tenant)
    else:
        _require(path, check_name, pattern)


def require_line(path: str, text: str) -> None:
    if len(text) > _MAX_LINE or not text.isprintable():
        refuse(path, f"expected one line of at most {_MAX_LINE} characters")


def require_moment(path: str, when: datetime | None) -> None:
    """A time without a zone names no moment."""
    if when is None:
        return
    if when.tzinfo is None:
        refuse(path, f"{when} has no time zone; use datetime(..., tzinfo=UTC)")
    try:
        when.astimezone(UTC)
    except OverflowError as e:  # the first or last day there is, in another time zone
        refuse(path, f"there is no such time in UTC: {when}", e)


def covers(pattern: str, name: str) -> bool:
    """Whether a name is the one a pattern names, or one of the tenant it names."""
    tenant, _, prefix = pattern.partition("/")
    return pattern == name or (prefix == ALL and tenant != "" and tenant == tenant_of(name))


def _require(path: str, check: Callable[[str], None], value: str) -> None:
    try:
        check(value)
    except ArtifactError as e:
        refuse(path, str(e), e)
