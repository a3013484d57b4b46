"""The engine of this process: one model, its prefixes in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from foreword.artifact import Digest
from foreword.errors import UnsupportedModel
from foreword.prefix.base_model import BaseModel, load_base
from foreword.registry.registry import Registry
from foreword.serving.engine.backend import EmbeddedBackend
from foreword.serving.engine.engine import Engine, EngineSettings
from foreword.serving.engine.residency.store import Budgets, LoadLimits, PrefixStore, StoreStats
from foreword.serving.engine.residency.tiers import DiskTier
from foreword.serving.engine.waiting.queue import Limits
from foreword.serving.server.settings import EmbeddedSettings
from foreword.signing.store import load_policy, open_verified
from foreword.signing.verify import VerifiedArtifact
from foreword.telemetry.records import Record

_WARM_UP = 0.5
"""Seconds of the start that may go into what the first steps would wait for."""


def load(base: str) -> BaseModel:
    """
    Raises:
        CompatibilityError: it cannot be loaded, or has no tokenizer.
        UnsupportedModel: it is no decoder; those are not served (`serve.decoder`).
    """
    loaded = load_base(base)
    if loaded.kind != "causal":
        raise UnsupportedModel(
            f"{base} is not a decoder; only decoders are served, `foreword generate` runs the others",
            code="serve.decoder",
        )
    loaded.required_tokenizer()
    return loaded


class Listeners:
    """Who hears of prefixes. The engine is there before telemetry, which asks it for what holds now."""

    def __init__(self) -> None:
        self._each: tuple[Callable[[Record], None], ...] = ()

    def add(self, listener: Callable[[Record], None]) -> None:
        self._each += (listener,)

    def __call__(self, record: Record) -> None:
        for listener in self._each:
            listener(record)


@dataclass(frozen=True)
class Embedded:
    backend: EmbeddedBackend
    stats: Callable[[], StoreStats]


def embedded(
    base: BaseModel,
    settings: EmbeddedSettings,
    registry: Registry,
    trust: Path | None,
    place: Path,
    told: Listeners,
) -> Embedded:
    """A backend whose prefixes come from a registry and are judged by the policy of that moment.

    Raises:
        UnsupportedModel: the engine does not reproduce this model's logits.
        StorageError: the place for copies on disk cannot be used.
    """

    def fetch(digest: Digest) -> VerifiedArtifact:
        return registry.fetch(digest, load_policy(trust), datetime.now(UTC))

    def again(path: Path) -> VerifiedArtifact:
        return open_verified(path, load_policy(trust), datetime.now(UTC))

    disk = DiskTier(place / "prefixes", settings.disk_bytes, again) if settings.disk_bytes else None
    budgets = Budgets(settings.prefix_bytes, settings.host_bytes)
    limits = LoadLimits(fetch=settings.fetch_seconds)
    store = PrefixStore(base, fetch, budgets, disk=disk, limits=limits, told=told)
    engine = Engine(base, store, engine_settings(settings))
    engine.warm_up(_WARM_UP)
    return Embedded(EmbeddedBackend(engine, wedged_after=settings.wedged_after), store.stats)


def engine_settings(settings: EmbeddedSettings) -> EngineSettings:
    return EngineSettings(
        most_running=settings.most_running,
        kv_bytes=settings.kv_bytes,
        prompt_cache_bytes=settings.prompt_cache_bytes,
        prompt_tokens=settings.prompt_tokens,
        queue=Limits(total=settings.waiting, per_tenant=settings.waiting_per_tenant),
    )
