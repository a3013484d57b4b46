"""How a version is written down by people.

acme/support            what the name's release gives
acme/support@1.2.3      this version
acme/support@stable     an alias: stable and canary follow the release, others are set by hand
sha256:<64 hex digits>  exactly these bytes
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from foreword.artifact import Digest
from foreword.artifact.manifest import check_name, check_version
from foreword.errors import ArtifactError, UsageError

STABLE, CANARY = "stable", "canary"

_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,31}")  # begins with a letter, a version with a digit
_LONGEST = 320


@dataclass(frozen=True)
class ByName:
    """Whatever is released under a name."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ByVersion:
    """One version of a name."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class ByAlias:
    """A word that stands for a version of a name."""

    name: str
    alias: str

    def __str__(self) -> str:
        return f"{self.name}@{self.alias}"


@dataclass(frozen=True)
class ByDigest:
    """Exactly these bytes."""

    digest: Digest

    def __str__(self) -> str:
        return str(self.digest)


Reference = ByName | ByVersion | ByAlias | ByDigest


def parse_reference(text: str) -> Reference:
    """Read a reference; `str()` of the result is the same text.

    Raises:
        UsageError: the text has none of the four forms (`reference.malformed`).
    """
    if len(text) > _LONGEST:
        _refuse(text)
    try:
        if text.startswith("sha256:"):
            return ByDigest(Digest.parse(text))
        name, at, rest = text.partition("@")
        check_name(name)
        if not at:
            return ByName(name)
        if _ALIAS.fullmatch(rest):
            return ByAlias(name, rest)
        check_version(rest)
        return ByVersion(name, rest)
    except ArtifactError as e:
        _refuse(text, e)


def check_alias(alias: str) -> None:
    """An own alias: a word that is not one of the release's.

    Raises:
        UsageError: another form (`alias.malformed`), or `stable` or `canary` (`alias.reserved`).
    """
    if not _ALIAS.fullmatch(alias):
        raise UsageError(
            "an alias is at most 32 lower-case letters, digits or '-', beginning with a letter, got "
            f"{alias[:80]!r}",
            code="alias.malformed",
        )
    if alias in (STABLE, CANARY):
        raise UsageError(
            f"{alias!r} follows the release; use release, shift or rollback to move it",
            code="alias.reserved",
        )


def _refuse(text: str, cause: Exception | None = None) -> NoReturn:
    raise UsageError(
        "expected tenant/prefix, tenant/prefix@1.2.3, tenant/prefix@alias or sha256:<64 hex digits>, "
        f"got {text[:80]!r}",
        code="reference.malformed",
    ) from cause
