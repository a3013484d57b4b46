"""Gateway and engine in one process: opens what is needed, cheapest first, then serves."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

from foreword.prefix.base_model import BaseModel
from foreword.serving.gateway.prompting import Prompter
from foreword.serving.server.doors import bind_both, gateway_doors, tell
from foreword.serving.server.embedded import Listeners, embedded, load
from foreword.serving.server.gauges import residency
from foreword.serving.server.house import Behind, Model, house, open_registry
from foreword.serving.server.keys import open_store
from foreword.serving.server.process import Say, serve
from foreword.serving.server.settings import ServeSettings
from foreword.signing.store import load_policy


def run_whole(settings: ServeSettings, place: Path, say: Say) -> None:
    """
    Raises:
        ForewordError: as `run`.
    """
    with ExitStack() as opened:
        store = open_store(settings)
        registry = opened.enter_context(open_registry(settings.registry))
        load_policy(settings.trust)
        sockets = bind_both(settings)
        base, told = load(settings.base), Listeners()
        engine = embedded(base, settings.embedded, registry, settings.trust, place, told)
        opened.callback(engine.backend.close)
        model = model_of(base)
        behind = Behind(
            engine.backend, engine.backend, engine.backend.health, residency(engine.stats)
        )
        built = opened.enter_context(house(settings, store, registry, model, behind, place))
        told.add(built.front.emit)
        doors = gateway_doors(settings, built, engine.backend, sockets)
        asyncio.run(
            serve(
                built, doors, settings.grace, lambda: tell(settings, built, model, doors, say), say
            )
        )


def model_of(base: BaseModel) -> Model:
    prompter = Prompter(base.required_tokenizer(), base.context)
    return Model(base.ref.id, base.ref.fingerprint, base.context, prompter)
