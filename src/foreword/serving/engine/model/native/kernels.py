"""What lies between the matrix products of a step, and a product with a row or two, as kernels.

A kernel is told addresses, strides in numbers, and sizes. Its work falls into pieces; every thread that
enters takes pieces until none is left. Shapes are those of `operations.py`, which has checked them.
"""

from __future__ import annotations

from numba import carray

from foreword.serving.engine.model.native import arithmetic as at
from foreword.serving.engine.model.native.compiling import (
    ANY_ORDER,
    fetch_early,
    floats_at,
    integers_at,
    kernel,
    part,
    taken,
)

PIECES, WORKERS = 0, 1
"""The counters of a kernel's words."""
OUTPUTS = 32
"""Outputs of a linear layer that make one piece of work."""
CHUNK = 512
"""Numbers of a gated row that make one piece of work."""
LINE = 64
"""Bytes that come from memory at once."""


@kernel("x out table rows inputs outputs parts")
def linear(words):
    """The weights come from memory once, which is all that takes time with a row or two."""
    w = carray(words, 1)[0]
    x = carray(floats_at(w.x), (w.rows, w.inputs))
    out = carray(floats_at(w.out), (w.rows, w.outputs))
    table = carray(integers_at(w.table), (w.parts, 3))
    first = taken(words, PIECES) * OUTPUTS
    while first < w.outputs:
        here, of = first, 0
        while here >= table[of, 0]:
            here, of = here - table[of, 0], of + 1
        for output in range(first, min(first + OUTPUTS, w.outputs)):
            if here == table[of, 0]:
                here, of = 0, of + 1
            weight = carray(floats_at(table[of, 1] + 4 * here * w.inputs), (w.inputs,))
            bias = floats_at(table[of, 2])[here] if table[of, 2] else at.ZERO
            for row in range(w.rows):
                out[row, output] = at.dot(weight, x[row]) + bias
            here += 1
        first = taken(words, PIECES) * OUTPUTS


@kernel("x delta weight out rows dim", "eps")
def add_norm(words):
    w = carray(words, 1)[0]
    x = carray(floats_at(w.x), (w.rows, w.dim))
    weight = carray(floats_at(w.weight), (w.dim,))
    out = carray(floats_at(w.out), (w.rows, w.dim))
    row = taken(words, PIECES)
    while row < w.rows:
        if w.delta:
            at.add(x[row], carray(floats_at(w.delta), (w.rows, w.dim))[row])
        at.rms_norm(x[row], weight, w.eps, out[row])
        row = taken(words, PIECES)


@kernel(
    "x cos sin query_norm key_norm tokens heads queries keys dim", "query_norm_eps key_norm_eps"
)
def turn(words):
    w = carray(words, 1)[0]
    x = carray(floats_at(w.x), (w.tokens, w.heads, w.dim))
    cos = carray(floats_at(w.cos), (w.tokens, w.dim))
    sin = carray(floats_at(w.sin), (w.tokens, w.dim))
    token = taken(words, PIECES)
    while token < w.tokens:
        for head in range(w.queries + w.keys):
            is_query = head < w.queries
            if norm := w.query_norm if is_query else w.key_norm:
                eps = w.query_norm_eps if is_query else w.key_norm_eps
                weight = carray(floats_at(norm), (w.dim,))
                at.rms_norm(x[token, head], weight, eps, x[token, head])
            at.turn(x[token, head], cos[token], sin[token])
        token = taken(words, PIECES)


@kernel("both out rows dim")
def gate(words):
    w = carray(words, 1)[0]
    dim = w.dim
    both = carray(floats_at(w.both), (w.rows, 2 * dim))
    out = carray(floats_at(w.out), (w.rows, dim))
    chunks = (dim + CHUNK - 1) // CHUNK
    piece = taken(words, PIECES)
    while piece < w.rows * chunks:
        row, first = piece // chunks, piece % chunks * CHUNK
        last = min(first + CHUNK, dim)
        at.gate(both[row, first:last], both[row, dim + first : dim + last], out[row, first:last])
        piece = taken(words, PIECES)


@part(ANY_ORDER)
def _attend(queries, keys, values, scores, out, lse, address):
    """Query heads that share keys and values, over all columns of these. Values lie at the address."""
    group, seen = scores.shape
    size = 4 * values.shape[1]
    for column in range(seen):
        for line in range(address + size * column, address + size * (column + 1), LINE):
            fetch_early(line)
        for i in range(group):
            scores[i, column] = at.dot(queries[i], keys[column])
    for i in range(group):
        lse[i] = at.softmax(scores[i])
        at.weighted_sum(scores[i], values, out[i])


@part(ANY_ORDER)
def _integers(address, count):
    return carray(integers_at(address), (count,))


@part(ANY_ORDER)
def _rows(address, first, count, dim):
    """`[count, dim]`, from that row on."""
    return carray(floats_at(address + 4 * first * dim), (count, dim))


@part(ANY_ORDER)
def _head(address, token, token_stride, head, head_stride, dim):
    return carray(floats_at(address + 4 * (token * token_stride + head * head_stride)), (dim,))


@kernel(
    "query query_token query_head key key_token key_head value value_token value_head "
    "arena_keys arena_values rows columns firsts ends out lse scratch "
    "tokens heads kv_heads key_dim value_dim capacity longest",
    "scale",
)
def attend(words):
    w = carray(words, 1)[0]
    key_dim, value_dim, group = w.key_dim, w.value_dim, w.heads // w.kv_heads
    rows, columns = _integers(w.rows, w.tokens), _integers(w.columns, w.tokens)
    firsts, ends = _integers(w.firsts, w.tokens), _integers(w.ends, w.tokens)
    out = carray(floats_at(w.out), (w.tokens, w.kv_heads, group, value_dim))
    lse = carray(floats_at(w.lse), (w.tokens, w.kv_heads, group))
    own = w.scratch + 4 * group * (key_dim + w.longest) * taken(words, WORKERS)
    queries = carray(floats_at(own), (group, key_dim))
    piece = taken(words, PIECES)
    while piece < w.tokens * w.kv_heads:
        token, head = piece // w.kv_heads, piece % w.kv_heads
        row = (rows[token] * w.kv_heads + head) * w.capacity
        keys = _rows(w.arena_keys, row, w.capacity, key_dim)
        values = _rows(w.arena_values, row, w.capacity, value_dim)
        at.copy(_head(w.key, token, w.key_token, head, w.key_head, key_dim), keys[columns[token]])
        at.copy(
            _head(w.value, token, w.value_token, head, w.value_head, value_dim),
            values[columns[token]],
        )
        for i in range(group):
            query = _head(w.query, token, w.query_token, head * group + i, w.query_head, key_dim)
            at.scale(query, w.scale * at.LOG2_E, queries[i])
        first, end = firsts[token], ends[token]
        scores = carray(floats_at(own + 4 * group * key_dim), (group, end - first))
        _attend(
            queries, keys[first:end], values[first:end], scores, out[token, head], lse[token, head],
            w.arena_values + 4 * (row + first) * value_dim,
        )  # fmt: skip
        piece = taken(words, PIECES)
