"""Is this process alive, and should it be sent requests? Two questions with two answers.

Alive: the engine steps. A supervisor restarts what is not. Ready: a request would be answered now, so
an engine that is late with a step is not, long before it counts as dead.
What is down but not needed for what is loaded already, such as the database, is told and changes
nothing: the last known good goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from foreword.serving.contract import Health


@dataclass(frozen=True)
class Part:
    """How one part of the server is doing."""

    well: bool
    needed: bool
    """Whether requests fail without it."""
    last_well: float | None = None
    """Unix time; None: never."""
    facts: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "well": self.well,
            "needed": self.needed,
            "last_well": None if self.last_well is None else _stamp(self.last_well),
            **(self.facts or {}),
        }


Parts = Callable[[], Mapping[str, Part]]


def is_live(engine: Health) -> bool:
    """A draining engine is alive, one whose steps do not end any more is not."""
    return engine.state in ("ready", "draining")


def unready(parts: Mapping[str, Part]) -> list[str]:
    """Names of the parts for which nothing should be sent here."""
    return [name for name, part in parts.items() if part.needed and not part.well]


def engine_part(engine: Health, now: float, clock: float, late: float) -> Part:
    """`now` is Unix time, `clock` the steady clock that the engine's last step is told on.

    `late`: seconds without a step after which requests should go elsewhere.
    """
    last = None if engine.last_step is None else now - (clock - engine.last_step)
    in_time = engine.last_step is None or clock - engine.last_step <= late
    well = engine.state == "ready" and in_time
    return Part(well, True, now if well else last, {"state": engine.state, "detail": engine.detail})


def _stamp(when: float) -> str:
    return (
        datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
