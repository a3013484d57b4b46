"""What people say of two arms: thumbs down among those who rated, and escalations among all.

Looked at as often as one likes (`experiments.sequential`), with alpha shared by the two questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from foreword.evaluation.experiments.arms import Shares
from foreword.evaluation.experiments.sequential import FEWEST, TUNING, Comparison, compare


@dataclass(frozen=True)
class Feedback:
    """Of one arm, counted by key: a key that ever rated down has rated down."""

    keys: int
    escalated: int
    """Keys that asked for a person."""
    rated: int
    down: int

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Feedback:
        """Count log lines: `key` (or else `id`), `feedback` of `up` or `down`, `escalated`."""
        keys: dict[str, set[str]] = {}
        for place, row in enumerate(rows):
            said = keys.setdefault(str(row.get("key", row.get("id", place))), set())
            if row.get("feedback") in ("up", "down"):
                said.add(row["feedback"])
            if row.get("escalated") is True:
                said.add("escalated")
        return cls(
            len(keys),
            sum("escalated" in said for said in keys.values()),
            sum(bool(said & {"up", "down"}) for said in keys.values()),
            sum("down" in said for said in keys.values()),
        )


def compare_feedback(
    stable: Feedback,
    canary: Feedback,
    *,
    alpha: float = 0.05,
    tuning: float = TUNING,
    fewest: int = FEWEST,
) -> dict[str, Comparison]:
    """Canary minus stable for `thumbs_down` and `escalations`; above 0 is worse for the canary."""
    questions = {
        "thumbs_down": (Shares(stable.rated, stable.down), Shares(canary.rated, canary.down)),
        "escalations": (
            Shares(stable.keys, stable.escalated),
            Shares(canary.keys, canary.escalated),
        ),
    }
    return {
        name: compare(*arms, alpha=alpha / len(questions), tuning=tuning, fewest=fewest)
        for name, arms in questions.items()
    }
