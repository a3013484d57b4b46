"""One key of the trust policy: whose word it is, and what it is good for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast, get_args

from foreword.artifact.manifest import check_name
from foreword.errors import ArtifactError, UsageError
from foreword.signing.keys import PublicKey, check_key_name
from foreword.signing.statement import SIGN, check_kind
from foreword.signing.tables import Table, listed, moment_text, quoted, refuse

EVERY = "*"
"""Every tenant, or every kind of statement."""

Status = Literal["active", "retiring", "revoked"]
STATUSES: tuple[Status, ...] = get_args(Status)
Purpose = Literal["use", "publish"]
"""What the artifact is wanted for. A retiring key still vouches for use, no longer for publishing."""


@dataclass(frozen=True)
class Objection:
    """Why one key's word does not count."""

    code: str
    reason: str


_ORDER = (
    "trust.unknown_key",
    "trust.key_revoked",
    "trust.tenant",
    "trust.role",
    "trust.key_not_yet",
    "trust.key_expired",
    "trust.key_retiring",
)
"""In this order a key is judged; who falls later was nearer to being believed."""


def nearest(objections: Iterable[Objection]) -> Objection:
    """Of several objections, that to the key that was nearest to being believed."""
    return max(objections, key=lambda each: _ORDER.index(each.code))


@dataclass(frozen=True)
class TrustedKey:
    """A public key and what its word is good for."""

    public: PublicKey
    name: str
    """For people, such as the owner's."""
    tenants: tuple[str, ...] = (EVERY,)
    """Tenants it may speak for, or `*`. A name without a tenant is covered by `*` only."""
    may: tuple[str, ...] = (EVERY,)
    """`sign` and the kinds of attestations that its word counts for, or `*`."""
    not_before: datetime | None = None
    not_after: datetime | None = None
    """The last moment at which it counts."""
    status: Status = "active"

    def __post_init__(self) -> None:
        path = f"keys.{self.name[:80]!r}"
        checked(path, check_key_name, self.name)
        _check_each(f"{path}.tenants", self.tenants, check_tenant)
        _check_each(f"{path}.may", self.may, _check_word)
        if self.status not in STATUSES:
            refuse(f"{path}.status", "value", f"expected one of {', '.join(STATUSES)}")
        for when in (self.not_before, self.not_after):
            check_moment(path, when)
        if self.not_before and self.not_after and self.not_before >= self.not_after:
            refuse(path, "value", "not_before has to be earlier than not_after")

    def objection(
        self, says: str, tenant: str, now: datetime, purpose: Purpose
    ) -> Objection | None:
        """Why its word does not count for this statement about this tenant's artifact, or None."""
        found = self._judge(says, tenant, now, purpose)
        if found is None:
            return None
        code, reason = found
        return Objection(f"trust.{code}", f"key {self.name!r} ({self.public.id}) {reason}")

    def _judge(
        self, says: str, tenant: str, now: datetime, purpose: Purpose
    ) -> tuple[str, str] | None:
        """The rules, in the order of `_ORDER`."""
        if self.status == "revoked":
            return "key_revoked", "was revoked; sign again with another key"
        if EVERY not in self.tenants and tenant not in self.tenants:
            return "tenant", f"speaks for {', '.join(self.tenants)}, not for {tenant!r}"
        if EVERY not in self.may and says not in self.may:
            return "role", f"may say {', '.join(self.may)}, not {says!r}"
        if self.not_before and now < self.not_before:
            start = moment_text(self.not_before)
            return "key_not_yet", f"counts from {start} on, now is {moment_text(now)}"
        if self.not_after and now > self.not_after:
            end = moment_text(self.not_after)
            return "key_expired", f"counted until {end}, now is {moment_text(now)}"
        if self.status == "retiring" and purpose == "publish":
            return "key_retiring", "is retiring and vouches for nothing new; use its successor"
        return None

    @classmethod
    def from_table(cls, table: Table, name: str) -> TrustedKey:
        """Read `[keys.NAME]`.

        Raises:
            TrustError: codes `trust.policy*`.
        """
        key_id, pem = table.text("id"), table.text("public")
        try:
            public = PublicKey.from_pem(pem)
        except UsageError as e:
            refuse(table.at("public"), "value", str(e), e)
        if public.id != key_id:
            refuse(table.at("id"), "value", f"this public key has the id {public.id}")
        status = table.choice("status", STATUSES) if table.has("status") else "active"
        key = cls(
            public,
            name,
            tenants=table.texts("tenants"),
            may=table.texts("may") if table.has("may") else (EVERY,),
            not_before=table.moment("not_before") if table.has("not_before") else None,
            not_after=table.moment("not_after") if table.has("not_after") else None,
            status=cast(Status, status),
        )
        table.done()
        return key

    def to_lines(self) -> list[str]:
        """What `from_table` reads."""
        lines = [
            f"[keys.{quoted(self.name)}]",
            f"id = {quoted(self.public.id)}",
            f'public = """\n{self.public.pem}"""',
            f"tenants = {listed(self.tenants)}",
            f"may = {listed(self.may)}",
            f"status = {quoted(self.status)}",
        ]
        if self.not_before:
            lines.append(f"not_before = {moment_text(self.not_before)}")
        if self.not_after:
            lines.append(f"not_after = {moment_text(self.not_after)}")
        return lines


def tenant_of(name: str) -> str:
    """`acme` for `acme/support`; a name without a tenant belongs to nobody, which is ''."""
    return name.rpartition("/")[0]


def check_tenant(tenant: str) -> None:
    """The part of a name before the '/'.

    Raises:
        ArtifactError: with code `manifest.name`.
    """
    check_name(f"{tenant}/prefix")


def checked(path: str, check: Callable[[str], None], value: str) -> None:
    """Apply somebody else's check; what it raises becomes a `TrustError` about this place."""
    try:
        check(value)
    except (ArtifactError, UsageError) as e:
        refuse(path, "value", str(e), e)


def check_moment(path: str, when: datetime | None) -> None:
    """A time without a zone names no moment."""
    if when and when.tzinfo is None:
        refuse(path, "value", f"{when} has no time zone; use datetime(..., tzinfo=UTC)")


def _check_each(path: str, words: tuple[str, ...], check: Callable[[str], None]) -> None:
    if not words or len(set(words)) != len(words):
        refuse(path, "value", "expected at least one entry, each once")
    for word in sorted(set(words) - {EVERY}):
        checked(path, check, word)


def _check_word(word: str) -> None:
    if word != SIGN:
        check_kind(word)
