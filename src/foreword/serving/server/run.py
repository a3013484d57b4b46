"""`foreword serve`: open what is needed, cheapest first, then serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from foreword.prefix.base_model import BaseModel
from foreword.serving.engine.residency.store import StoreStats
from foreword.serving.gateway.edge import EdgeSettings, guarded_config, uvicorn_config
from foreword.serving.gateway.prompting import Prompter
from foreword.serving.server.embedded import embedded, load
from foreword.serving.server.house import House, Model, house, open_registry
from foreword.serving.server.keys import open_store
from foreword.serving.server.operator import operator_port
from foreword.serving.server.place import own_place
from foreword.serving.server.process import TOLD, Door, Say, bind, serve
from foreword.serving.server.settings import ServeSettings, check
from foreword.signing.store import load_policy
from foreword.telemetry.records import Gauges, Record


def run(settings: ServeSettings, say: Say) -> None:
    """Serve until the process is told to stop. `say` is given lines for whoever started it.

    Raises:
        ConfigError: settings do not go together, an address is taken, there is no key.
        NotFound, TrustError: there is no registry or no trust policy; the message says how to make one.
        CompatibilityError: the base cannot be loaded or served.
        StorageError: the disk refused.
    """
    check(settings)
    with ExitStack() as opened:
        place = opened.enter_context(own_place(settings.port))
        store = open_store(settings)
        registry = opened.enter_context(open_registry(settings.registry))
        load_policy(settings.trust)
        public = bind(settings.host, settings.port, "--port")
        private = bind(settings.admin_host, settings.admin_port, "--admin-port")
        base = load(settings.base)
        listeners: list[Callable[[Record], None]] = []
        engine = embedded(
            base,
            settings.embedded,
            registry,
            settings.trust,
            place,
            told=lambda record: _pass_on(record, listeners),
        )
        opened.callback(engine.backend.close)
        built = opened.enter_context(
            house(
                settings, store, registry, model_of(base), engine.backend, engine.backend,
                _residency(engine.stats), place,
            )
        )  # fmt: skip
        listeners.append(built.front.emit)
        front = uvicorn_config(built.edge, host=settings.host, port=settings.port, grace=TOLD)
        back = guarded_config(
            operator_port(built, engine.backend), EdgeSettings(), built.edge.refused,
            host=settings.admin_host, port=settings.admin_port, grace=TOLD,
        )  # fmt: skip
        doors = [Door(public, front), Door(private, back)]
        asyncio.run(
            serve(
                built, doors, settings.grace, lambda: _tell(settings, built, base, doors, say), say
            )
        )


def model_of(base: BaseModel) -> Model:
    prompter = Prompter(base.required_tokenizer(), base.context)
    return Model(base.ref.id, base.ref.fingerprint, base.context, prompter)


def _pass_on(record: Record, listeners: Sequence[Callable[[Record], None]]) -> None:
    """The engine is there before telemetry, which asks it for what holds now."""
    for listen in listeners:
        listen(record)


def _residency(stats: Callable[[], StoreStats]) -> Callable[[Gauges], Gauges]:
    def add(gauges: Gauges) -> Gauges:
        now = stats()
        return replace(
            gauges, resident=now.resident, hits=now.hits, misses=now.misses,
            host_bytes=now.host_bytes, disk_bytes=now.disk_bytes,
        )  # fmt: skip

    return add


def _tell(
    settings: ServeSettings, built: House, base: BaseModel, doors: list[Door], say: Say
) -> None:
    """That it can be used, and with what."""
    table, status = built.follower.table, built.follower.status
    released = sum(named.release is not None for named in table.names.values())
    say(f"serving {base.ref.id} ({base.ref.fingerprint.short}) at {doors[0].url}/v1")
    say(f"metrics, health and admin at {doors[1].url}")
    say(f"{released} prefixes released, as of entry {status.seq} ({status.source})")
    if status.error:
        say(f"the registry does not answer ({status.error}); what was known before is served")
    if settings.open:
        say("no keys are asked for (--open): whoever reaches the port may use everything")
