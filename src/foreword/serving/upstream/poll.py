"""What is known of an engine that is somewhere else: asked again and again, told at once."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx2

from foreword.errors import EngineFailed, ForewordError
from foreword.serving.contract import Capacity, Health, ResidentPrefix
from foreword.serving.upstream.contract_json import (
    capacity_from_bytes,
    health_from_bytes,
    residents_from_bytes,
)

NOTHING = Capacity(0, 0, 0, 0, 0, 0, 0)
Ask = Callable[[str], Awaitable[bytes]]
"""The document at a path."""


@dataclass(frozen=True)
class Known:
    """As of one moment."""

    health: Health
    capacity: Capacity = NOTHING
    residents: tuple[ResidentPrefix, ...] = ()


async def look(ask: Ask, before: Known) -> Known:
    """How it is now. One that does not answer has failed, and what it held is unknown."""
    try:
        health = health_from_bytes(await ask("health"), time.monotonic())
        capacity = capacity_from_bytes(await ask("capacity"))
        return Known(health, capacity, residents_from_bytes(await ask("residents")))
    except (httpx2.HTTPError, ForewordError) as e:
        reason = e.code if isinstance(e, ForewordError) else type(e).__name__
        detail = f"it does not answer ({reason})"
        return Known(Health("failed", before.health.last_step, detail))


def unreachable(error: httpx2.HTTPError) -> EngineFailed:
    """What a request is told."""
    return EngineFailed(
        f"the engine's process does not answer ({type(error).__name__}); ask again",
        code="engine.unreachable",
        retry_after=1.0,
    )
