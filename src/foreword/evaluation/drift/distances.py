"""How far two samples are apart: MMD of vectors, Kolmogorov-Smirnov and PSI of numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from foreword.evaluation.drift.permutation import Labels, Numbers, Statistic

Vectors = npt.NDArray[np.float32]
_BINS = 10


def mmd(pooled: Vectors) -> Statistic:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, equation 3) of vectors `[rows, d]`.

    The kernel is exp(-d^2 / median d^2) over the pooled rows, so that it does not depend on labels.
    """
    kernel = _kernel(pooled)
    sums = kernel.sum(axis=1, dtype=np.float64)
    total = float(sums.sum())

    def statistic(labels: Labels) -> Numbers:
        m = labels[0].sum(dtype=np.float64)
        n = len(pooled) - m
        within = ((labels @ kernel) * labels).sum(axis=1, dtype=np.float64)
        touching = labels.astype(np.float64) @ sums
        others = total - 2 * touching + within
        between = touching - within
        found: Numbers = (
            within / (m * (m - 1)) + others / (n * (n - 1)) - 2 * between / (m * n)
        )  # fmt: skip
        return found

    return statistic


def kolmogorov_smirnov(pooled: Numbers) -> Statistic:
    """The largest distance of the two distribution functions of numbers `[rows]`, ties counted right."""
    order = np.argsort(pooled, kind="stable")
    ordered = pooled[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(pooled) - 1)

    def statistic(labels: Labels) -> Numbers:
        m = labels[0].sum(dtype=np.float64)
        n = len(pooled) - m
        reference = np.cumsum(labels[:, order], axis=1, dtype=np.float64)[:, ends]
        current = (ends + 1) - reference
        found: Numbers = np.abs(reference / m - current / n).max(axis=1)
        return found

    return statistic


def psi(reference: Numbers, current: Numbers) -> float:
    """Population stability index over the reference's deciles; each bin has half a row more than it has.

    0.1 is commonly called a shift worth a look, 0.25 a large one. Of few rows it is large by chance:
    about (bins - 1) (1/m + 1/n).
    """
    edges = _edges(reference, current)
    counts = [
        np.bincount(np.searchsorted(edges, each, side="left"), minlength=len(edges) + 1)
        for each in (reference, current)
    ]
    shares = [(count + 0.5) / (count.sum() + 0.5 * len(count)) for count in counts]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def _edges(reference: Numbers, current: Numbers) -> Numbers:
    """Upper ends of all bins but the last; a few values, such as 0 and 1, are a bin each."""
    values = np.unique(np.concatenate([reference, current]))
    if len(values) <= _BINS:
        few: Numbers = values[:-1]
        return few
    edges: Numbers = np.unique(np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return edges


def _kernel(pooled: Vectors) -> Vectors:
    wide = pooled.astype(np.float64)
    squares = (wide**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * wide @ wide.T, 0.0)
    positive = distances[np.triu_indices(len(wide), 1)]
    positive = positive[positive > 1e-12]
    scale = float(np.median(positive)) if len(positive) else 1.0
    kernel: Vectors = np.exp(-distances / scale).astype(np.float32)
    np.fill_diagonal(kernel, 0.0)
    return kernel
