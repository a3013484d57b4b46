"""P-values of many questions asked at once."""

from __future__ import annotations

from collections.abc import Sequence


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's step-down: adjusted p-values, in the order given.

    Rejecting those at or below alpha is wrong about any of them with probability alpha at the most,
    whatever they have to do with each other (Holm 1979).
    """
    order = sorted(range(len(pvalues)), key=lambda place: pvalues[place])
    adjusted = [1.0] * len(pvalues)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(pvalues) - rank) * pvalues[place]))
        adjusted[place] = largest
    return adjusted
