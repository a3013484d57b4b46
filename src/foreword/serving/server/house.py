"""The parts of a server put together, in the order in which they need each other.

keys ─┐        registry ─▶ follower ─▶ router ─┐
      ├─▶ edge ─▶ gateway ─▶ front ────────────┼─▶ backend: embedded, or an engine over HTTP
admin ┘                                        └─▶ telemetry
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from foreword.artifact import Digest
from foreword.registry.layout import Layout
from foreword.registry.registry import Registry
from foreword.serving.contract import Backend, Health, PrefixHost
from foreword.serving.gateway.access.store import AccessStore
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.app import Lobby, gateway
from foreword.serving.gateway.edge import Edge, edge
from foreword.serving.gateway.edge.drain import Gate
from foreword.serving.gateway.front import Front
from foreword.serving.gateway.health import Part, engine_part
from foreword.serving.gateway.limits.quotas import Quotas
from foreword.serving.gateway.prompting import Prompter
from foreword.serving.gateway.routing.follower import Follower, FollowStatus
from foreword.serving.gateway.routing.resolve import Router
from foreword.serving.gateway.story import refused
from foreword.serving.gateway.sweep import Sweep
from foreword.serving.server.gauges import capacity_gauges
from foreword.serving.server.keys import Keys, keys
from foreword.serving.server.settings import ServeSettings
from foreword.serving.server.telling import Telling, telling
from foreword.telemetry.hub import SinkState
from foreword.telemetry.records import Gauges, Record


@dataclass(frozen=True)
class Model:
    """What the gateway knows of the model that answers."""

    name: str
    fingerprint: Digest
    context: int | None
    prompter: Prompter


@dataclass(frozen=True)
class Behind:
    """What answers behind a gateway, and what else is known of it."""

    backend: Backend
    host: PrefixHost
    alive: Callable[[], Health]
    """What `/livez` goes by."""
    residency: Callable[[Gauges], Gauges] = lambda gauges: gauges
    """Adds what is known of resident prefixes."""


@dataclass(frozen=True)
class House:
    """A gateway with everything behind it, except for its sockets."""

    edge: Edge
    lobby: Lobby
    front: Front
    follower: Follower
    keys: Keys
    telling: Telling

    @property
    def gate(self) -> Gate:
        return self.edge.gate

    def cut_off(self) -> None:
        """End what is still generating; whoever waits for it is told."""
        for name in tuple(self.front.running):
            self.front.backend.cancel(name)


def open_registry(directory: Path | None) -> Registry:
    """A registry whose database may be away: whoever follows it knows what to do then.

    Raises:
        NotFound: there is none (`registry.missing`).
        ConfigError: it cannot be used.
    """
    layout = Layout.load(directory)
    return Registry(layout.open_database(), layout.open_blobs(), layout.approvals)


@contextmanager
def house(
    settings: ServeSettings,
    store: AccessStore | None,
    registry: Registry,
    model: Model,
    behind: Behind,
    place: Path,
) -> Iterator[House]:
    """
    Raises:
        ConfigError, StorageError: keys, telemetry or the place cannot be used.
    """
    with ExitStack() as opened:
        late: list[House] = []
        hub = opened.enter_context(
            telling(settings.telemetry, lambda: behind.residency(_gauges(late[0])), place)
        )
        emit = hub.hub.emit
        held = opened.enter_context(keys(store))
        follower = Follower(
            registry, model.fingerprint, host=behind.host, told=emit,
            known_good=place / "known-good.jsonl",
        )  # fmt: skip
        follower.start()
        opened.callback(follower.stop)
        opened.callback(model.prompter.close)
        front = _front(settings, model, behind.backend, follower, held.table, emit)
        if store is not None:
            sweep = Sweep(held.table, front, behind.host)
            sweep.start()
            opened.callback(sweep.stop)
        parts = partial(_parts, behind.backend, follower, held, hub, settings.embedded.late_after)
        lobby = Lobby(behind.alive, parts)
        edged = edge(
            gateway(front, lobby),
            settings.edge,
            held.believe,
            lambda code, status: emit(refused(time.time(), status, code)),
        )
        lobby.draining = lambda: edged.gate.draining
        late.append(House(edged, lobby, front, follower, held, hub))
        yield late[0]


def _front(
    settings: ServeSettings,
    model: Model,
    backend: Backend,
    follower: Follower,
    table: Callable[[], AccessTable],
    emit: Callable[[Record], None],
) -> Front:
    router = Router(
        lambda: follower.table,
        table,
        model.fingerprint,
        used=follower.used,
        unread=follower.unread,
    )
    quotas = Quotas(lambda tenant, key: table().limits_of(tenant, key))
    return Front(
        model.fingerprint, model.prompter, router, quotas, backend, emit, settings.answer_seconds
    )


def _gauges(house: House) -> Gauges:
    status = house.follower.status
    return replace(
        capacity_gauges(house.front.backend.capacity()),
        streams=house.front.quotas.streams,
        releases=sum(named.release is not None for named in house.follower.table.names.values()),
        tenants=len(house.keys.table().tenants),
        journal_age=status.age,
    )


def _parts(
    backend: Backend, follower: Follower, held: Keys, hub: Telling, late: float
) -> Mapping[str, Part]:
    now, clock = time.time(), time.monotonic()
    return {
        "engine": engine_part(backend.health(), now, clock, late),
        "releases": _releases(follower.status, now),
        "access": held.state(),
        **{f"telemetry.{each.name}": _sink(each) for each in hub.hub.states()},
    }


def _releases(status: FollowStatus, now: float) -> Part:
    """The database may be away; what nobody can do without is a table that was known once."""
    ever = status.age != float("inf")
    facts = {
        "source": status.source,
        "entry": status.seq,
        "age_seconds": round(status.age, 3) if ever else None,
        "code": status.error,
        "unread_manifests": status.unread,
    }
    known = status.source != "nothing"
    return Part(known and not status.error, not known, now - status.age if ever else None, facts)


def _sink(state: SinkState) -> Part:
    facts = {"failures": state.failures, "dropped": state.dropped, "queued": state.queued}
    return Part(not state.detail, False, state.well, facts)
