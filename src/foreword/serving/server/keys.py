"""Who may come in: the access table with its keys and issuers, or everybody on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING

from foreword.errors import ConfigError
from foreword.serving.gateway.access.identify import identify
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.store import AccessStore
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import Tenant
from foreword.serving.gateway.access.words import ALL
from foreword.serving.gateway.edge import Believe
from foreword.serving.gateway.health import Part
from foreword.serving.server.settings import ServeSettings

if TYPE_CHECKING:
    from foreword.serving.gateway.access.jwks import IssuerKeys

OPEN = "open"
"""The tenant of everybody, where no keys are asked for."""


@dataclass(frozen=True)
class Keys:
    table: Callable[[], AccessTable]
    believe: Believe
    state: Callable[[], Part]
    store: AccessStore | None
    """None if no keys are asked for."""


def open_store(settings: ServeSettings) -> AccessStore | None:
    """The access table, before anything slow is begun; None if no keys are asked for.

    Raises:
        ConfigError: there is not one key yet (`serve.no_keys`), or the table is damaged.
        StorageError: the disk refused.
    """
    if settings.open:
        return None
    store = AccessStore(settings.access)
    if not store.table().keys and not store.table().issuers:
        raise ConfigError(
            f"{store.path} has no key, so nobody could use this server; make one with `foreword access "
            "tenant add NAME --base` and `foreword access key issue NAME`, or try it out with --open",
            code="serve.no_keys",
        )
    return store


@contextmanager
def keys(store: AccessStore | None) -> Iterator[Keys]:
    """Who is believed.

    Raises:
        ConfigError: tokens are to be believed and the extra for them is not installed.
    """
    if store is None:
        yield _for_everybody()
        return
    issuers = _issuer_keys(store)
    try:
        yield Keys(store.table, _believing(store, issuers), lambda: _state(store), store)
    finally:
        if issuers is not None:
            issuers.stop()


def _believing(store: AccessStore, issuers: IssuerKeys | None) -> Believe:
    return lambda header: identify(store.table(), header, datetime.now(UTC), issuers)


def _issuer_keys(store: AccessStore) -> IssuerKeys | None:
    if find_spec("joserfc") is None:
        if store.table().issuers:
            raise ConfigError(
                "the access table has token issuers, and their tokens need joserfc; pip install "
                "'foreword[oidc]'",
                code="usage.extra",
            )
        return None
    from foreword.serving.gateway.access.jwks import IssuerKeys

    found = IssuerKeys(lambda: store.table().issuers)
    found.start()
    return found


def _state(store: AccessStore) -> Part:
    state = store.state()
    facts = {"generation": state.generation, "code": state.code}
    return Part(not state.code, False, state.read.timestamp(), facts)


@dataclass(frozen=True)
class _Everybody(Tenant):
    """May use every prefix there is, also those without a tenant."""

    def __post_init__(self) -> None:
        """A grant of everything is no grant that a file could hold."""

    def may_use(self, name: str | None) -> bool:
        return True


def _for_everybody() -> Keys:
    everybody = _Everybody(OPEN, grants=(ALL,), base=True)
    table = replace(AccessTable(), tenants={OPEN: everybody})
    principal = Principal(OPEN, OPEN, frozenset({"generate", "models"}))
    return Keys(lambda: table, lambda _header: principal, lambda: Part(True, False), None)
