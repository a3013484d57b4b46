"""What kernels do to a few numbers at a time; every loop here becomes vector instructions."""

from __future__ import annotations

import numpy as np

from foreword.serving.engine.model.native.compiling import ANY_ORDER, AS_WRITTEN, float_of, part

ZERO, ONE = np.float32(0), np.float32(1)
LOG2_E = np.float32(1.4426950408889634)
LN_2 = np.float32(0.6931471805599453)
_LOWEST, _HIGHEST = np.float32(-126), np.float32(126)
_ROUNDS = np.float32(127.5)


@part(AS_WRITTEN)
def exp2(x):
    """2**x for |x| < 126, and what it is at that bound beyond; not a number stays not a number.

    2**x = 2**n * 2**f with n the nearest integer: the bits of a float32 hold n, and the Taylor
    series to the seventh power gives the rest, to 5e-9 of it for |f| <= 1/2.
    """
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    biased = np.int32(x + _ROUNDS)
    f = x - np.float32(biased - np.int32(127))
    y = np.float32(1.52527338e-5)
    y = y * f + np.float32(1.54035304e-4)
    y = y * f + np.float32(1.33335581e-3)
    y = y * f + np.float32(9.61812911e-3)
    y = y * f + np.float32(5.55041087e-2)
    y = y * f + np.float32(2.40226507e-1)
    y = y * f + np.float32(6.93147181e-1)
    y = y * f + ONE
    return y * float_of(np.int32(biased << np.int32(23)))


@part(ANY_ORDER)
def dot(a, b):
    total = ZERO
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@part(ANY_ORDER)
def add(x, delta):
    for i in range(x.shape[0]):
        x[i] += delta[i]


@part(ANY_ORDER)
def weighted_sum(weights, rows, out):
    """`weights @ rows`, for `rows [row, dim]`.

    Eight rows at a time: `out` is then read and written an eighth as often.
    """
    count, size = rows.shape
    for i in range(size):
        out[i] = ZERO
    whole = count // 8 * 8
    for first in range(0, whole, 8):
        _add_eight(out, weights[first : first + 8], rows[first : first + 8])
    for row in range(whole, count):
        for i in range(size):
            out[i] += weights[row] * rows[row, i]


@part(ANY_ORDER)
def _add_eight(out, w, x):
    for i in range(out.shape[0]):
        out[i] += (w[0] * x[0, i] + w[1] * x[1, i] + w[2] * x[2, i] + w[3] * x[3, i]
                   + w[4] * x[4, i] + w[5] * x[5, i] + w[6] * x[6, i] + w[7] * x[7, i])  # fmt: skip


@part(ANY_ORDER)
def rms_norm(x, weight, eps, out):
    """`x / sqrt(mean(x**2) + eps) * weight`; `out` may be `x`."""
    size = x.shape[0]
    factor = ONE / np.sqrt(dot(x, x) / np.float32(size) + eps)
    for i in range(size):
        out[i] = x[i] * factor * weight[i]


@part(ANY_ORDER)
def turn(x, cos, sin):
    """Rotate a head by halves, `(x1, x2)` with `(-x2, x1)`, where it lies."""
    half = x.shape[0] // 2
    for i in range(half):
        first, second = x[i], x[i + half]
        x[i] = first * cos[i] - second * sin[i]
        x[i + half] = second * cos[i + half] + first * sin[i + half]


@part(ANY_ORDER)
def gate(gated, up, out):
    """`silu(gated) * up`."""
    for i in range(out.shape[0]):
        out[i] = gated[i] / (ONE + exp2(-gated[i] * LOG2_E)) * up[i]


@part(ANY_ORDER)
def copy(x, out):
    for i in range(out.shape[0]):
        out[i] = x[i]


@part(ANY_ORDER)
def scale(x, factor, out):
    for i in range(out.shape[0]):
        out[i] = x[i] * factor


@part(ANY_ORDER)
def softmax(scores):
    """Scores in powers of two become weights, in place; returns the natural log-sum-exp."""
    largest = scores[0]
    for i in range(1, scores.shape[0]):
        largest = max(largest, scores[i])
    total = ZERO
    for i in range(scores.shape[0]):
        weight = exp2(scores[i] - largest)
        scores[i] = weight
        total += weight
    inverse = ONE / total
    for i in range(scores.shape[0]):
        scores[i] *= inverse
    return largest * LN_2 + np.log(total)
