"""Attention of quantized rows: self-attention of sources, and attention of a step's rows to the cache.

Shapes and `table` are as in models.compiled.kernels.
"""

from __future__ import annotations

import numpy as np

from models.compiled import vectors
from models.compiled.jit import inline, kernel
from models.compiled.rows import (
    Bytes,
    Floats,
    Halves,
    Ints,
    dequantize,
    dequantize_narrow,
    exp,
    greatest,
    quantize,
    widen,
)


@inline
def _exponentials(weights: Floats, length: int) -> np.float32:
    """Replaces the first `length` weights by their exponentials; returns one over the sum of these."""
    top = greatest(weights[:length])
    total = np.float32(0)
    for t in range(length):
        e = exp(weights[t] - top)
        weights[t] = e
        total += e
    return np.float32(1) / total


@inline
def _dot(a: Floats, b: Halves) -> np.float32:
    if a.size % vectors.LANES == 0:
        return vectors.dot_halves(a.ctypes.data, b.ctypes.data, a.size)  # type: ignore[no-any-return]
    total = np.float32(0)
    for j in range(a.size):
        total += a[j] * widen(b[j])
    return total


@inline
def _add(out: Floats, factor: np.float32, b: Halves) -> None:
    if out.size % vectors.LANES == 0:
        vectors.add_halves(out.ctypes.data, factor, b.ctypes.data, out.size)
    else:
        for j in range(out.size):
            out[j] += factor * widen(b[j])


@inline
def _attend(q: Floats, kv: Halves, path: Ints, length: int, weights: Floats, mixed: Floats) -> None:
    """Attention of one row's queries q (h, w) to the first `length` positions of its path: path[t] is the row of
    kv (r, t, 2, h, w) that has the keys and values of position t. Writes mixed (h, w); weights (h, t) is scratch."""
    heads = q.shape[0]
    for t in range(length):
        keys = kv[path[t], t, 0]
        for h in range(heads):
            weights[h, t] = _dot(q[h], keys[h])
    for h in range(heads):
        inverse = _exponentials(weights[h], length)
        for t in range(length):
            weights[h, t] *= inverse
    mixed[:] = np.float32(0)
    for t in range(length):
        values = kv[path[t], t, 1]
        for h in range(heads):
            _add(mixed[h], weights[h, t], values[h])


@kernel
def attend_source(
    sums: Ints, sums_scales: Floats, table: Floats, starts: Ints, heads: int, d: int, yq: Bytes, scales: Floats
) -> None:
    """Self-attention of concatenated sources: the tokens of source i are rows starts[i] to starts[i + 1].

    sums (n, 3d), the queries, keys and values -> yq (n, d), scales (n).
    """
    longest = 0
    for b in range(starts.size - 1):
        longest = max(longest, starts[b + 1] - starts[b])
    numbers = np.empty((longest, 3 * d), np.float32)
    qkv = numbers.reshape(longest, 3, heads, d // heads)
    mixed, weights = np.empty((heads, d // heads), np.float32), np.empty(longest, np.float32)
    for b in range(starts.size - 1):
        first, length = starts[b], starts[b + 1] - starts[b]
        for t in range(length):
            dequantize(sums[first + t, : 3 * d], sums_scales[first + t], table[0], table[1], numbers[t])
        for i in range(length):
            for h in range(heads):
                query, out = qkv[i, 0, h], mixed[h]
                for t in range(length):
                    key = qkv[t, 1, h]
                    total = np.float32(0)
                    for j in range(key.size):
                        total += query[j] * key[j]
                    weights[t] = total
                inverse = _exponentials(weights, length)
                out[:] = np.float32(0)
                for t in range(length):
                    value, weight = qkv[t, 2, h], weights[t] * inverse
                    for j in range(value.size):
                        out[j] += weight * value[j]
            scales[first + i] = quantize(mixed.reshape(d), yq[first + i])


@kernel
def remember(sums: Ints, sums_scales: Floats, table: Floats, starts: Ints, rows: Ints, memory: Halves) -> None:
    """Writes the keys and values of concatenated sources, sums (n, 2d), into the memory (r, s, 2, d): those of source i
    into row rows[i]."""
    d = memory.shape[3]
    for b in range(starts.size - 1):
        for i in range(starts[b], starts[b + 1]):
            place = memory[rows[b], i - starts[b]]
            dequantize_narrow(sums[i, :d], sums_scales[i], table[0, :d], table[1, :d], place[0])
            dequantize_narrow(sums[i, d:], sums_scales[i], table[0, d:], table[1, d:], place[1])


@kernel
def attend_own(
    sums: Ints,
    sums_scales: Floats,
    table: Floats,
    own: Halves,
    rows: Ints,
    positions: Ints,
    paths: Ints,
    heads: int,
    yq: Bytes,
    scales: Floats,
) -> None:
    """Writes the keys and values of the last tokens of (n) rows into own (r, t, 2, d), then computes each row's
    attention to all positions so far.

    sums (n, 3d), the queries, keys and values -> yq (n, d), scales (n).
    """
    r, longest, _, d = own.shape
    w = d // heads
    q, mixed, weights = (
        np.empty(d, np.float32),
        np.empty((heads, w), np.float32),
        np.empty((heads, longest), np.float32),
    )
    column, bias = table[0], table[1]
    for i in range(rows.size):
        product, scale, last = sums[i], sums_scales[i], positions[rows[i]]
        place = own[rows[i], last]
        dequantize(product[:d], scale, column[:d], bias[:d], q)
        dequantize_narrow(product[d : 2 * d], scale, column[d : 2 * d], bias[d : 2 * d], place[0])
        dequantize_narrow(product[2 * d : 3 * d], scale, column[2 * d : 3 * d], bias[2 * d : 3 * d], place[1])
        kv = own.reshape(r, longest, 2, heads, w)
        _attend(q.reshape(heads, w), kv, paths[rows[i]], last + 1, weights, mixed)
        scales[i] = quantize(mixed.reshape(d), yq[i])


@kernel
def attend_memory(
    sums: Ints,
    sums_scales: Floats,
    table: Floats,
    memory: Halves,
    rows: Ints,
    memories: Ints,
    lengths: Ints,
    heads: int,
    yq: Bytes,
    scales: Floats,
) -> None:
    """Attention of (n) rows to their sources in the memory (r, s, 2, d).

    sums (n, d), the queries -> yq (n, d), scales (n).
    """
    r, longest, _, d = memory.shape
    w = d // heads
    q, mixed, weights = (
        np.empty(d, np.float32),
        np.empty((heads, w), np.float32),
        np.empty((heads, longest), np.float32),
    )
    kv, path = memory.reshape(r, longest, 2, heads, w), np.empty(longest, np.int32)
    for i in range(rows.size):
        dequantize(sums[i, :d], sums_scales[i], table[0], table[1], q)
        path[:] = memories[rows[i]]
        _attend(q.reshape(heads, w), kv, path, lengths[rows[i]], weights, mixed)
        scales[i] = quantize(mixed.reshape(d), yq[i])
