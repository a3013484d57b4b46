"""One look at a version: its rows now against its reference window."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from foreword.artifact import Digest
from foreword.errors import UsageError
from foreword.evaluation.drift.distances import kolmogorov_smirnov, mmd, psi
from foreword.evaluation.drift.false_alarms import Budget
from foreword.evaluation.drift.observations import Observation, snapshot
from foreword.evaluation.drift.permutation import permutation_p
from foreword.evaluation.drift.reference import Reference
from foreword.evaluation.drift.window import Encoder, Window, as_json, make_window, sample

FEWEST = 50
"""Rows on either side: with fewer, nothing is said."""
LEAST_PSI = 0.1
"""A number has to have moved at least this far for an alarm: with many rows, any trifle is certain."""
INPUTS = "inputs.mmd"
_MOST_DRAWS = 200_000
_DRAWS = 4
"""Times as many as the smallest p-value asks for, so that chance does not decide alone."""


@dataclass(frozen=True)
class Finding:
    """One measure of one look."""

    measure: str
    """`inputs.mmd`, or a column with `.ks`."""
    statistic: float
    p: float
    """Of no change, of this measure alone; 1 if there are too few rows."""
    psi: float | None
    """How far a number moved; None for vectors."""
    reference: int
    current: int
    """Rows on either side."""
    alarm: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "measure": self.measure,
            "statistic": self.statistic,
            "p": self.p,
            "psi": self.psi,
            "reference_rows": self.reference,
            "current_rows": self.current,
            "alarm": self.alarm,
        }


@dataclass(frozen=True)
class DriftReport:
    """What a look found."""

    reference: Reference
    current: Window
    findings: tuple[Finding, ...]
    """By p, the smallest first."""
    level: float
    """A false alarm of this look is this probable at most."""
    enough: bool
    """There were rows enough to say anything."""
    snapshot: bytes
    """The rows that were looked at, as JSONL."""

    @property
    def alarm(self) -> bool:
        return any(finding.alarm for finding in self.findings)

    @property
    def p(self) -> float:
        """Of no change in anything (Bonferroni over the measures); for `discoveries`."""
        if not self.findings:
            return 1.0
        return min(1.0, len(self.findings) * min(each.p for each in self.findings))

    @property
    def outcome(self) -> str:
        """`drifted`, `quiet` or `insufficient`."""
        if self.alarm:
            return "drifted"
        return "quiet" if self.enough else "insufficient"

    def to_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "digest": str(self.reference.window.digest),
            "p": self.p,
            "level": self.level,
            "findings": [finding.to_json() for finding in self.findings],
            "reference": {"window": str(self.reference.digest), **as_json(self.reference.window)},
            "current": as_json(self.current),
            "snapshot": str(Digest.of(self.snapshot)),
        }


def look(
    reference: Reference,
    observations: Sequence[Observation],
    encoder: Encoder,
    now: datetime,
    *,
    budget: Budget | None = None,
    least_psi: float = LEAST_PSI,
    seed: int = 0,
) -> DriftReport:
    """Compare rows of the version with its reference: MMD of inputs, KS and PSI of each column.

    The measures share the level of `budget` (Bonferroni). Rows have to be others than the
    reference's, and one per conversation: rows of one conversation are not independent.

    Raises:
        UsageError: no rows (`drift.rows`), another encoder than the reference's (`drift.encoder`), or a
            budget too small to be kept (`drift.budget`).
    """
    frozen = reference.window
    if encoder.name != frozen.encoder:
        raise UsageError(
            f"the reference was frozen with the encoder {frozen.encoder!r}, got {encoder.name!r}",
            code="drift.encoder",
        )
    level = (budget or Budget()).level
    kept = sample(observations, seed)
    current = make_window(frozen.digest, kept, encoder, now)
    if current.vectors.shape[1] != frozen.vectors.shape[1]:
        raise UsageError("the encoder gives vectors of another length now", code="drift.encoder")
    measures = 1 + len([name for name in current.columns if name in frozen.columns])
    draws = _draws(level / measures)
    found = sorted(
        _findings(frozen, current, level / measures, draws, least_psi, seed),
        key=lambda finding: finding.p,
    )
    enough = min(len(frozen.vectors), len(current.vectors)) >= FEWEST
    return DriftReport(reference, current, tuple(found), level, enough, snapshot(kept))


def _findings(
    frozen: Window, current: Window, level: float, draws: int, least_psi: float, seed: int
) -> Iterator[Finding]:
    m, n = len(frozen.vectors), len(current.vectors)
    statistic, p = 0.0, 1.0
    if min(m, n) >= FEWEST:
        pooled = np.concatenate([frozen.vectors, current.vectors])
        statistic, p = permutation_p(mmd(pooled), m, m + n, draws, seed)
    yield Finding(INPUTS, statistic, p, None, m, n, p <= level)
    for name, before in frozen.columns.items():
        if name not in current.columns:
            continue
        after = current.columns[name]
        moved = psi(before, after)
        statistic, p = 0.0, 1.0
        if min(len(before), len(after)) >= FEWEST:
            test = kolmogorov_smirnov(np.concatenate([before, after]))
            statistic, p = permutation_p(
                test, len(before), len(before) + len(after), draws, seed
            )  # fmt: skip
        alarm = p <= level and moved >= least_psi
        yield Finding(f"{name}.ks", statistic, p, moved, len(before), len(after), alarm)


def _draws(level: float) -> int:
    draws = math.ceil(_DRAWS / level)
    if draws > _MOST_DRAWS:
        raise UsageError(
            f"a level of {level:.2g} for each measure needs {draws} permutations, more than "
            f"{_MOST_DRAWS}; allow more false alarms a day, or look less often",
            code="drift.budget",
        )
    return max(999, draws)
