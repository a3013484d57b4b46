"""The trust policy: whose word counts, how many words are needed, and what is taken back.

A value and pure rules; `store.py` reads and writes the file `trust.toml` (docs/signing.md), `verify.py`
applies the rules to what was signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from foreword.artifact.digest import Digest
from foreword.artifact.manifest import check_name, check_version
from foreword.artifact.versions import precedence
from foreword.errors import ArtifactError, TrustError, UsageError
from foreword.signing.statement import check_kind
from foreword.signing.tables import Table, listed, moment_text, parse, quoted, refuse
from foreword.signing.trusted import (
    EVERY,
    Objection,
    Purpose,
    Status,
    TrustedKey,
    check_moment,
    check_tenant,
    checked,
    tenant_of,
)

__all__ = ["EVERY", "Purpose", "Status", "TenantRule", "TrustPolicy", "TrustedKey", "tenant_of"]

SCHEMA = "foreword.trust/1"
MAX_BYTES = 256 << 10
_MAX_REASON = 500


@dataclass(frozen=True)
class TenantRule:
    """What an artifact of a tenant needs."""

    threshold: int = 1
    """Signatures by that many different keys."""
    require: tuple[str, ...] = ()
    """Kinds of attestations, each with the verdict `pass`."""

    def __post_init__(self) -> None:
        if self.threshold < 1:
            refuse("tenants", "value",
                   f"a threshold is at least 1, got {self.threshold}: without a signature nothing "
                   "is trusted")  # fmt: skip
        for kind in self.require:
            checked("tenants.require", check_kind, kind)


@dataclass(frozen=True)
class TrustPolicy:
    """All of `trust.toml`."""

    keys: Mapping[str, TrustedKey] = field(default_factory=dict)
    """By key id."""
    tenants: Mapping[str, TenantRule] = field(default_factory=dict)
    """By tenant, or `*` for those that are not named."""
    revoked: Mapping[Digest, str] = field(default_factory=dict)
    """Artifacts that are taken back, and why."""
    floors: Mapping[str, str] = field(default_factory=dict)
    """Name to the oldest version that is still accepted."""
    expires: datetime | None = None
    """From this moment on the policy itself is too old: somebody may be holding newer ones back."""

    def __post_init__(self) -> None:
        _check_keys(self.keys)
        check_moment("expires", self.expires)
        for tenant in sorted(set(self.tenants) - {EVERY}):
            checked("tenants", check_tenant, tenant)
        for reason in self.revoked.values():
            if not 1 <= len(reason) <= _MAX_REASON or not reason.isprintable():
                refuse("revoked", "value", f"a reason is one line of 1 to {_MAX_REASON} characters")
        for name, version in self.floors.items():
            checked("floors", check_name, name)
            checked(f"floors.{name!r}", check_version, version)
        for name in ("keys", "tenants", "revoked", "floors"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def rule_for(self, tenant: str) -> TenantRule:
        """The tenant's own rule, else that of `*`, else one signature by one key."""
        return self.tenants.get(tenant) or self.tenants.get(EVERY) or TenantRule()

    def objection(
        self, key_id: str, says: str, tenant: str, now: datetime, purpose: Purpose
    ) -> Objection | None:
        """Why this key's word does not count here, or None if it does."""
        key = self.keys.get(key_id)
        if key is None:
            return Objection("trust.unknown_key", f"the policy has no key {key_id[:80]}")
        return key.objection(says, tenant, now, purpose)

    def check_current(self, now: datetime) -> None:
        """Refuse to judge by a policy that is too old (`trust.policy_expired`)."""
        if self.expires and now >= self.expires:
            raise TrustError(
                f"the trust policy expired at {moment_text(self.expires)}, now is "
                f"{moment_text(now)}; get the current one from whoever keeps it",
                code="trust.policy_expired",
            )

    def check_not_taken_back(self, name: str, version: str, digest: Digest) -> None:
        """Refuse what was revoked (`trust.digest_revoked`) or is too old (`trust.floor`)."""
        if digest in self.revoked:
            raise TrustError(
                f"{name} {version} ({digest}) was revoked: {self.revoked[digest]}",
                code="trust.digest_revoked",
            )
        floor = self.floors.get(name)
        if floor and precedence(version) < precedence(floor):
            raise TrustError(
                f"{name} has to be {floor} or newer, this is {version}", code="trust.floor"
            )

    def with_key(self, key: TrustedKey) -> TrustPolicy:
        """The policy with one more key.

        Raises:
            UsageError: the key, or its name, is there already (`key.exists`).
        """
        for other in self.keys.values():
            if other.public.id == key.public.id or other.name == key.name:
                raise UsageError(
                    f"the policy already has the key {other.name!r} ({other.public.id})",
                    code="key.exists",
                )
        return replace(self, keys={**self.keys, key.public.id: key})

    def with_status(self, key_id: str, status: Status) -> TrustPolicy:
        """The policy with another status for a key.

        Raises:
            UsageError: there is no such key (`key.missing`).
        """
        if key_id not in self.keys:
            raise UsageError(f"the policy has no key {key_id[:80]!r}", code="key.missing")
        changed = replace(self.keys[key_id], status=status)
        return replace(self, keys={**self.keys, key_id: changed})

    def with_revoked(self, digest: Digest, reason: str) -> TrustPolicy:
        """The policy with one artifact taken back."""
        return replace(self, revoked={**self.revoked, digest: reason})

    @classmethod
    def from_toml(cls, data: bytes) -> TrustPolicy:
        """Read `trust.toml`.

        Raises:
            TrustError: `trust.policy` (its form), `trust.policy_value`, or `trust.policy_unknown` (a
                key nobody knows, with the nearest known one).
        """
        if len(data) > MAX_BYTES:
            refuse("the file", None, f"expected at most {MAX_BYTES} bytes, got {len(data)}")
        return _read(parse(data))

    def to_toml(self) -> bytes:
        """The file's text, the same for equal policies; comments of an older file are not kept."""
        return ("\n".join(_lines(self)) + "\n").encode()


def _check_keys(keys: Mapping[str, TrustedKey]) -> None:
    names = [key.name for key in keys.values()]
    if len(set(names)) != len(names):
        refuse("keys", "value", "two keys have the same name")
    for key_id, key in keys.items():
        if key_id != key.public.id:
            refuse(f"keys.{key.name!r}", "value", f"its id is {key.public.id}, not {key_id[:80]!r}")


def _read(root: Table) -> TrustPolicy:
    root.choice("schema", (SCHEMA,))
    expires = root.moment("expires") if root.has("expires") else None
    keys, tenants = root.table("keys"), root.table("tenants")
    revoked, floors = root.table("revoked"), root.table("floors")
    root.done()
    trusted: dict[str, TrustedKey] = {}
    for name in keys.names():
        key = TrustedKey.from_table(keys.table(name), name)
        if key.public.id in trusted:  # under two names it would still be one key
            refuse(keys.at(name), "value", f"the key {key.public.id} is there twice")
        trusted[key.public.id] = key
    return TrustPolicy(
        keys=trusted,
        tenants={name: _read_rule(tenants.table(name)) for name in tenants.names()},
        revoked={_digest(revoked.at(name), name): revoked.text(name) for name in revoked.names()},
        floors={name: floors.text(name) for name in floors.names()},
        expires=expires,
    )


def _read_rule(table: Table) -> TenantRule:
    rule = TenantRule(
        threshold=table.integer("threshold") if table.has("threshold") else 1,
        require=table.texts("require") if table.has("require") else (),
    )
    table.done()
    return rule


def _digest(path: str, text: str) -> Digest:
    try:
        return Digest.parse(text)
    except ArtifactError as e:
        refuse(path, "value", str(e), e)


def _lines(policy: TrustPolicy) -> list[str]:
    lines = [f"schema = {quoted(SCHEMA)}"]
    if policy.expires:
        lines.append(f"expires = {moment_text(policy.expires)}")
    for key in sorted(policy.keys.values(), key=lambda key: key.name):
        lines += ["", *key.to_lines()]
    for tenant, rule in sorted(policy.tenants.items()):
        lines += ["", f"[tenants.{quoted(tenant)}]", f"threshold = {rule.threshold}"]
        lines += [f"require = {listed(rule.require)}"] if rule.require else []
    lines += _pairs("revoked", {str(digest): why for digest, why in policy.revoked.items()})
    return lines + _pairs("floors", policy.floors)


def _pairs(title: str, pairs: Mapping[str, str]) -> list[str]:
    lines = [f"{quoted(name)} = {quoted(text)}" for name, text in sorted(pairs.items())]
    return ["", f"[{title}]", *lines] if lines else []
