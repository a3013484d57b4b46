"""Tail probabilities of the normal, Student's t and chi-square distribution."""

from __future__ import annotations

import math
from statistics import NormalDist

_NORMAL = NormalDist()


def normal_tail(z: float) -> float:
    """P(Z >= z)."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def normal_quantile(p: float) -> float:
    """The z with P(Z <= z) = p."""
    return _NORMAL.inv_cdf(p)


def student_tail(t: float, freedom: int) -> float:
    """P(T >= t) with whole degrees of freedom (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    term = 1.0 if freedom % 2 == 0 else cosine
    total = 0.0
    for k in range(1 + freedom % 2, freedom, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    inside = sine * total if freedom % 2 == 0 else 2 / math.pi * (angle + sine * total)
    return min(1.0, max(0.0, (1 - inside) / 2))


def student_quantile(p: float, freedom: int) -> float:
    """The t with P(T <= t) = p, by bisection."""
    if p < 0.5:
        return -student_quantile(1 - p, freedom)
    low, high = 0.0, 1.0
    while 1 - student_tail(high, freedom) < p:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - student_tail(middle, freedom) < p else (low, middle)
    return (low + high) / 2


def chi_square_tail(x: float, freedom: int) -> float:
    """P(X >= x) with whole degrees of freedom (Abramowitz and Stegun 1964, 26.4.4 and 26.4.5)."""
    if x <= 0:
        return 1.0
    half = x / 2
    odd = freedom % 2
    tail = math.erfc(math.sqrt(half)) if odd else 0.0
    for k in range(1 if odd else 0, freedom - 1 + (1 - odd), 2):
        tail += math.exp(-half + k / 2 * math.log(half) - math.lgamma(k / 2 + 1))
    return min(1.0, tail)
