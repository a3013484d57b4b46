"""Tenants, keys and times for tests of the front door."""

from __future__ import annotations

from datetime import UTC, datetime

from foreword.registry.entries import By
from foreword.serving.gateway.access.keys import KeyRecord, issue
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import Tenant

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
BY = By("tester@here", NOW)


def table_of(*tenants: Tenant, keys: tuple[KeyRecord, ...] = ()) -> AccessTable:
    return AccessTable({each.name: each for each in tenants}, {key.id: key for key in keys})


def with_key(table: AccessTable, tenant: str, **facts: object) -> tuple[AccessTable, str, str]:
    """The table with a new key, the header that carries it, and its id."""
    text, record = issue(tenant, NOW, **facts)  # type: ignore[arg-type]
    return table.with_key(record), f"Bearer {text}", record.id
