"""Release tables, access tables and principals for the tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from foreword.artifact import Digest, PromptFormat
from foreword.registry.entries import (
    Aliased,
    BaseDeclared,
    Entry,
    Event,
    Published,
    Released,
)
from foreword.registry.state import State, fold
from foreword.serving.gateway.access.kills import Kill
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import Tenant
from foreword.serving.gateway.routing.resolve import Router
from foreword.serving.gateway.routing.table import ReleaseTable, advance, with_prompts
from tests.registry.samples import BASE, NOW, Log, by, claim, facts

HERE = BASE.ref.fingerprint
PROMPT = PromptFormat("template", "{input}\n")
KILL = Kill("it hurts", "ana", NOW)


def published(*names: str, versions: Iterable[str] = ("1.0.0", "2.0.0"), **changes: object) -> Log:
    """A journal with these versions of each name."""
    events: list[Event] = [BaseDeclared(BASE)]
    for name in names:
        for version in versions:
            events.append(Published(facts(version, name, **changes), (claim(),)))  # type: ignore[arg-type]
    log = Log()
    for event in events:
        log.entries.append(Entry.after(log.head, event, by()))
    log.state = fold(State(), log.entries)  # at once: thousands, one by one, would take seconds
    return log


def released(*names: str, canary: float = 0.0) -> Log:
    """A journal in which 1.0.0 of each name is stable, and 2.0.0 perhaps a canary."""
    log = published(*names)
    for name in names:
        log.add(Released(name, facts("1.0.0", name).digest, 1))
        if canary:
            log.add(Released(name, facts("2.0.0", name).digest, canary))
    return log


def table_of(log: Log) -> ReleaseTable:
    """All of a journal, with every manifest read."""
    table = advance(ReleaseTable(), log.state, list(log.state.names), {})
    return with_prompts(table, dict.fromkeys(log.state.versions, PROMPT))


def alias(log: Log, word: str, version: str, name: str) -> None:
    log.add(Aliased(name, word, facts(version, name).digest))


def access_of(*tenants: Tenant, **changes: object) -> AccessTable:
    return AccessTable({tenant.name: tenant for tenant in tenants}, **changes)  # type: ignore[arg-type]


def principal(tenant: str = "acme", only: tuple[str, ...] | None = None) -> Principal:
    return Principal(tenant, "0123456789abcdef", frozenset({"generate", "models"}), only)


@dataclass
class Door:
    """A router, and the tables it reads, which a test changes."""

    table: ReleaseTable
    access: AccessTable
    base: Digest = HERE
    used: list[Digest] = field(default_factory=list)
    unread: list[Digest] = field(default_factory=list)

    @property
    def router(self) -> Router:
        return Router(
            lambda: self.table,
            lambda: self.access,
            self.base,
            used=self.used.append,
            unread=self.unread.append,
        )
