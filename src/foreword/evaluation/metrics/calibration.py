"""How far a proxy agrees with people: stored next to its values, or the values say little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foreword.artifact import Digest, canonical
from foreword.errors import DataError
from foreword.evaluation.metrics.metric import Measured


@dataclass(frozen=True)
class Calibration:
    """A proxy against labels of people, on answers that both judged."""

    metric: str
    version: int
    threshold: float
    """The proxy says yes from here on; the value that agrees best on these very rows."""
    agreement: float
    """Share of rows on which both say the same."""
    kappa: float
    """Cohen's: agreement beyond chance, 1 at most. It is optimistic, as the threshold was chosen here."""
    n: int
    labels: Digest
    """Over the labelled ids and their labels."""


def calibrate(measured: Measured, labels: Mapping[str, bool]) -> Calibration:
    """Compare a metric's row values with labels by row id; True is a good answer.

    Raises:
        DataError: fewer than two labelled rows, or only labels of one kind (`calibration.labels`).
    """
    metric, table = measured.facts, measured.table
    values = dict(zip(table.ids, table.row_values().tolist(), strict=True))
    pairs = [(values[key], good) for key, good in sorted(labels.items()) if key in values]
    if len({good for _, good in pairs}) < 2:
        raise DataError(
            f"expected labelled rows of both kinds that have {metric.name}, got {len(pairs)} rows of "
            "one kind; label some good and some bad answers",
            code="calibration.labels",
        )
    sign = -1.0 if metric.better == "lower" else 1.0
    pairs = [(sign * value, good) for value, good in pairs]
    threshold = max(sorted({value for value, _ in pairs}), key=lambda t: _agreement(pairs, t))
    agreement = _agreement(pairs, threshold)
    used = {key: good for key, good in labels.items() if key in values}
    return Calibration(
        metric.name, metric.version, sign * threshold, agreement,
        _kappa(pairs, threshold, agreement), len(pairs), Digest.of(canonical.encode(used)),
    )  # fmt: skip


def _agreement(pairs: list[tuple[float, bool]], threshold: float) -> float:
    return sum((value >= threshold) == good for value, good in pairs) / len(pairs)


def _kappa(pairs: list[tuple[float, bool]], threshold: float, agreement: float) -> float:
    yes = sum(value >= threshold for value, _ in pairs) / len(pairs)
    good = sum(label for _, label in pairs) / len(pairs)
    chance = yes * good + (1 - yes) * (1 - good)
    return (agreement - chance) / (1 - chance) if chance < 1 else 0.0
