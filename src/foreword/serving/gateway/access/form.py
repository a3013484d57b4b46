"""The access table as the JSON of `access.json`: docs/access.md says what each field means.

One key or tenant stands on a line, so that a person can read it and `diff` shows what changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn, TypeVar, cast

from foreword.artifact.fields import Fields
from foreword.errors import ArtifactError, ConfigError
from foreword.serving.gateway.access.issuers import Issuer
from foreword.serving.gateway.access.keys import KeyRecord
from foreword.serving.gateway.access.kills import Kill
from foreword.serving.gateway.access.principal import Scope
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import MAX_GRANTS, Limits, Tenant
from foreword.signing.times import moment, stamp

SCHEMA = "foreword.access/1"
MAX_BYTES = 16 << 20
_MOST = 2**53
_Value = TypeVar("_Value")


def table_to_bytes(table: AccessTable) -> bytes:
    """The file's text, the same for equal tables; parts of a second are dropped."""
    sections = table_to_json(table)
    lines = [f'"schema": "{SCHEMA}"', f'"generation": {table.generation}']
    for name, entries in sections.items():
        body = ",\n".join(f"  {_text(key)}: {_text(value)}" for key, value in entries.items())
        lines.append(f'"{name}": {{\n{body}\n}}' if body else f'"{name}": {{}}')
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def table_from_bytes(data: bytes) -> AccessTable:
    """
    Raises:
        ConfigError: not such a file (`access.form`), or a value that cannot be (`access.value`).
    """
    if len(data) > MAX_BYTES:
        _refuse(f"expected at most {MAX_BYTES} bytes, got {len(data)}")
    try:
        return _read(Fields(json.loads(data.decode(), object_pairs_hook=_unique), "the file"))
    except ConfigError:
        raise
    except (ArtifactError, ValueError, RecursionError) as e:
        _refuse(str(e)[:300], e)


def table_to_json(table: AccessTable) -> dict[str, dict[str, Any]]:
    """Each section by name, its entries in order."""
    return {
        "tenants": _sorted(table.tenants, tenant_to_json),
        "keys": _sorted(table.keys, lambda key: {**key_to_json(key), "sha256": key.sha256}),
        "killed": _sorted(table.killed, kill_to_json),
        "killed_tenants": _sorted(table.killed_tenants, kill_to_json),
        "issuers": _sorted(table.issuers, issuer_to_json),
    }


def tenant_to_json(tenant: Tenant) -> dict[str, Any]:
    return {
        "grants": list(tenant.grants),
        "base": tenant.base,
        "fallback": tenant.fallback,
        "limits": limits_to_json(tenant.limits),
        "enabled": tenant.enabled,
        "note": tenant.note,
    }


def key_to_json(key: KeyRecord) -> dict[str, Any]:
    """Everything but the hash of the secret."""
    return {
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "only": None if key.only is None else list(key.only),
        "created": stamp(key.created),
        "expires": _stamp(key.expires),
        "revoked": _stamp(key.revoked),
        "limits": limits_to_json(key.limits),
        "note": key.note,
    }


def limits_to_json(limits: Limits) -> dict[str, int | None]:
    return {"requests": limits.requests, "tokens": limits.tokens, "streams": limits.streams}


def kill_to_json(kill: Kill) -> dict[str, Any]:
    return {"reason": kill.reason, "by": kill.by, "when": stamp(kill.when)}


def issuer_to_json(issuer: Issuer) -> dict[str, Any]:
    return {
        "audience": issuer.audience,
        "tenants": list(issuer.tenants),
        "algorithms": list(issuer.algorithms),
        "jwks": issuer.jwks,
        "tenant_claim": issuer.tenant_claim,
        "scope_claim": issuer.scope_claim,
        "leeway": issuer.leeway,
    }


def tenant_from_json(name: str, fields: Fields) -> Tenant:
    """A tenant; what is left out has its default."""
    return _done(
        fields,
        Tenant(
            name,
            grants=fields.texts("grants", MAX_GRANTS) if fields.has("grants") else (),
            base=_flag(fields, "base", False),
            fallback=fields.text("fallback") if fields.has("fallback") else "none",
            limits=limits_from_json(fields),
            enabled=_flag(fields, "enabled", True),
            note=fields.text("note") if fields.has("note") else "",
        ),
    )


def limits_from_json(fields: Fields) -> Limits:
    if not fields.has("limits"):
        return Limits()
    inner = fields.object("limits")
    return _done(inner, Limits(**{name: _count(inner, name) for name in limits_to_json(Limits())}))


def _read(root: Fields) -> AccessTable:
    root.choice("schema", (SCHEMA,))
    return _done(
        root,
        AccessTable(
            generation=root.integer("generation", 0, _MOST),
            tenants=_section(root, "tenants", tenant_from_json),
            keys=_section(root, "keys", _key_from_json),
            killed=_section(root, "killed", _kill_from_json),
            killed_tenants=_section(root, "killed_tenants", _kill_from_json),
            issuers=_section(root, "issuers", _issuer_from_json),
        ),
    )


def _section(root: Fields, name: str, read: Callable[[str, Fields], _Value]) -> dict[str, _Value]:
    entries = root.object(name).rest()
    return {
        key: read(key, Fields(value, f"{name}.{key[:130]!r}")) for key, value in entries.items()
    }


def _key_from_json(id: str, fields: Fields) -> KeyRecord:
    return _done(
        fields,
        KeyRecord(
            id,
            tenant=fields.text("tenant"),
            sha256=fields.text("sha256"),
            scopes=cast(frozenset[Scope], frozenset(fields.texts("scopes", 8))),
            created=moment(fields.text("created")),
            only=None if fields.is_null("only") else fields.texts("only", 1_000),
            expires=_moment(fields, "expires"),
            revoked=_moment(fields, "revoked"),
            limits=limits_from_json(fields),
            note=fields.text("note"),
        ),
    )


def _kill_from_json(_target: str, fields: Fields) -> Kill:
    kill = Kill(fields.text("reason"), fields.text("by"), moment(fields.text("when")))
    return _done(fields, kill)


def _issuer_from_json(url: str, fields: Fields) -> Issuer:
    return _done(
        fields,
        Issuer(
            url,
            audience=fields.text("audience"),
            tenants=fields.texts("tenants", MAX_GRANTS),
            algorithms=fields.texts("algorithms", 32),
            jwks=fields.text("jwks"),
            tenant_claim=fields.text("tenant_claim"),
            scope_claim=fields.text("scope_claim"),
            leeway=fields.integer("leeway", 0, _MOST),
        ),
    )


def _done(fields: Fields, value: _Value) -> _Value:
    fields.done()
    return value


def _flag(fields: Fields, name: str, default: bool) -> bool:
    return fields.flag(name) if fields.has(name) else default


def _count(fields: Fields, name: str) -> int | None:
    if not fields.has(name) or fields.is_null(name):
        return None
    return fields.integer(name, 0, _MOST)


def _moment(fields: Fields, name: str) -> datetime | None:
    return None if fields.is_null(name) else moment(fields.text(name))


def _stamp(when: datetime | None) -> str | None:
    return None if when is None else stamp(when)


def _sorted(entries: Mapping[str, _Value], write: Callable[[_Value], Any]) -> dict[str, Any]:
    return {key: write(entries[key]) for key in sorted(entries)}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    raise ConfigError(f"not an access table: {reason}", code="access.form") from cause
