"""What a CPU does between two products of int8 matrices, each in one pass over the rows, compiled by Numba.

A product of int8 matrices leaves int32 sums. To be a number, a sum is multiplied by the scale of its row (of the
activations) and that of its column (of the weights), and gets its bias; and to enter the next product, a row is divided
by its own scale, which makes its largest value 127 (dynamic quantization, symmetric, a scale per row, so that the
numbers of a sentence do not depend on its neighbours). Here both happen in the same pass as what lies between them.

In the shapes: n rows, d the model's width, h heads, v target vocabulary; r, t and s as in models.network.cache. `table`
holds in its rows, per column, the scale and the bias of the product that made `sums`, and, for a norm, its weight and
bias, and what a row of ones would have as its product without the bias.
Keys and values are bfloat16, as the upper halves of float32 in uint16. Everything else is float32.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.compiled import vectors
from models.compiled.jit import inline, kernel

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]
Ints = NDArray[np.int32]
Bytes = NDArray[np.int8]

LOWEST = np.float32(-3e38)
_TINY = np.int32(0x0DA24260)  # the bits of 1e-30, so that a row of zeros has a scale
_BLOCK = 64  # logits whose largest is kept apart, so that taking the best out does not look at all others again

ACTIVATION_CODES = {"swish": 0, "silu": 0, "relu": 1, "gelu": 2}


@inline
def _exp(x: np.float32) -> np.float32:
    """To a relative error of 3e-7: 2^(n + f), f from -1/2 to 1/2 by a polynomial, n added to the exponent's bits.
    math.exp would not be vectorized."""
    x = min(max(x * np.float32(1.44269504), np.float32(-126.0)), np.float32(126.0))
    n = np.rint(x)
    f = x - n
    p = np.float32(1.3381302537e-3)
    p = p * f + np.float32(9.6663685154e-3)
    p = p * f + np.float32(5.5503810138e-2)
    p = p * f + np.float32(2.4022349038e-1)
    p = p * f + np.float32(6.9314718056e-1)
    p = p * f + np.float32(1.0)
    return np.int32(np.float32(p).view(np.int32) + (np.int32(n) << np.int32(23))).view(np.float32)


@inline
def _widen(x: np.uint16) -> np.float32:
    return np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)


@inline
def _narrow(x: np.float32) -> np.uint16:
    return np.uint16((np.float32(x).view(np.uint32) + np.uint32(0x8000)) >> np.uint32(16))


@inline
def _ordered(bits: np.int32) -> np.int32:
    """The bits of a float as an integer, in the order of the floats; and those back."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@inline
def _largest(values: Floats) -> np.float32:
    """Compares bits as integers: LLVM vectorizes their maximum but not that of floats (0.05 ns a value against 0.5)."""
    bits = values.view(np.int32)
    most = np.int32(-0x7FFFFFFF)
    for j in range(bits.size):
        most = max(most, _ordered(bits[j]))
    return np.int32(_ordered(most)).view(np.float32)


@inline
def _numbers(sums: Ints, scale: np.float32, scales: Floats, biases: Floats, out: Floats) -> None:
    for j in range(out.size):
        out[j] = np.float32(sums[j]) * (scale * scales[j]) + biases[j]


@inline
def _narrow_numbers(sums: Ints, scale: np.float32, scales: Floats, biases: Floats, out: Halves) -> None:
    for j in range(out.size):
        out[j] = _narrow(np.float32(sums[j]) * (scale * scales[j]) + biases[j])


@inline
def _quantize(row: Floats, out: Bytes) -> np.float32:
    """Writes the row's bytes, returns its scale."""
    bits = row.view(np.int32)  # without their signs, floats are in the order of their bits; see _largest
    most = _TINY
    for j in range(row.size):
        most = max(most, bits[j] & np.int32(0x7FFFFFFF))
    largest = np.int32(most).view(np.float32)
    inverse = np.float32(127.0) / largest
    for j in range(row.size):
        out[j] = np.int8(np.int32(np.rint(row[j] * inverse)))
    return largest / np.float32(127.0)


@inline
def _quantize_between(row: Floats, out: Bytes) -> tuple[np.float32, np.float32]:
    """As _quantize, but the middle between the row's ends becomes 0: returns the scale, and that middle."""
    bits = row.view(np.int32)
    most, least = np.int32(-0x7FFFFFFF), np.int32(0x7FFFFFFF)
    for j in range(bits.size):
        ordered = _ordered(bits[j])
        most, least = max(most, ordered), min(least, ordered)
    high, low = np.int32(_ordered(most)).view(np.float32), np.int32(_ordered(least)).view(np.float32)
    middle, half = np.float32(0.5) * (high + low), max(np.float32(0.5) * (high - low), np.float32(1e-30))
    inverse = np.float32(127.0) / half
    for j in range(row.size):
        out[j] = np.int8(np.int32(np.rint((row[j] - middle) * inverse)))
    return half / np.float32(127.0), middle


@inline
def _exponentials(weights: Floats, length: int) -> np.float32:
    """Puts the exponentials of the first `length` weights in their place, returns one over their sum."""
    top = _largest(weights[:length])
    total = np.float32(0)
    for t in range(length):
        e = _exp(weights[t] - top)
        weights[t] = e
        total += e
    return np.float32(1) / total


@inline
def _dot(a: Floats, b: Halves) -> np.float32:
    if a.size % vectors.LANES == 0:
        return vectors.dot_halves(a.ctypes.data, b.ctypes.data, a.size)  # type: ignore[no-any-return]
    total = np.float32(0)
    for j in range(a.size):
        total += a[j] * _widen(b[j])
    return total


@inline
def _add(out: Floats, factor: np.float32, b: Halves) -> None:
    if out.size % vectors.LANES == 0:
        vectors.add_halves(out.ctypes.data, factor, b.ctypes.data, out.size)
    else:
        for j in range(out.size):
            out[j] += factor * _widen(b[j])


@inline
def _attend(q: Floats, kv: Halves, path: Ints, length: int, weights: Floats, mixed: Floats) -> None:
    """Of one row's queries (h, w) to the keys and values kv (r, t, 2, h, w) in the rows of its path, a position each.
    The result goes into mixed (h, w); weights (h, t) is for what lies between."""
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
def embed(
    tokens: Ints, positions: Ints, embeddings: Floats, sinusoids: Floats, x: Floats, xq: Bytes, scales: Floats
) -> None:
    """(n) tokens at (n) positions -> their embeddings, and those quantized: x, xq (n, d), scales (n)."""
    for i in range(tokens.size):
        row, token, position = x[i], embeddings[tokens[i]], sinusoids[positions[i]]
        for j in range(row.size):
            row[j] = token[j] + position[j]
        scales[i] = _quantize(row, xq[i])


@kernel
def add_norm(
    sums: Ints,
    sums_scales: Floats,
    middles: Floats,
    table: Floats,
    epsilon: np.float32,
    x: Floats,
    xq: Bytes,
    scales: Floats,
) -> None:
    """x <- layer norm of x plus the product, and that quantized: x, xq (n, d), scales (n). `middles` (n): what 0 stood
    for in the product's rows."""
    d = x.shape[1]
    column, bias, weight, shift, ones = table[0], table[1], table[2], table[3], table[4]
    for i in range(x.shape[0]):
        row, product, scale, middle = x[i], sums[i], sums_scales[i], middles[i]
        total = np.float32(0)
        for j in range(d):
            value = row[j] + np.float32(product[j]) * (scale * column[j]) + (middle * ones[j] + bias[j])
            row[j] = value
            total += value
        mean = total / np.float32(d)
        squares = np.float32(0)
        for j in range(d):
            squares += (row[j] - mean) * (row[j] - mean)
        inverse = np.float32(1) / np.float32(math.sqrt(squares / np.float32(d) + epsilon))
        for j in range(d):
            row[j] = (row[j] - mean) * inverse * weight[j] + shift[j]
        scales[i] = _quantize(row, xq[i])


@kernel
def activate(
    sums: Ints, sums_scales: Floats, table: Floats, activation: int, yq: Bytes, scales: Floats, middles: Floats
) -> None:
    """The activation, by its code, of the product, quantized between its ends: yq (n, inner), scales, middles (n).

    Of all that is quantized it is the most lopsided; around 0, half of the bytes would hardly be used.
    """
    row = np.empty(table.shape[1], np.float32)
    for i in range(sums.shape[0]):
        _numbers(sums[i], sums_scales[i], table[0], table[1], row)
        if activation == 0:
            for j in range(row.size):
                row[j] = row[j] / (np.float32(1) + _exp(-row[j]))
        elif activation == 1:
            for j in range(row.size):
                row[j] = max(row[j], np.float32(0))
        else:
            for j in range(row.size):
                row[j] = row[j] * np.float32(0.5 * math.erfc(-row[j] * math.sqrt(0.5)))
        scales[i], middles[i] = _quantize_between(row, yq[i])


@kernel
def attend_source(
    sums: Ints, sums_scales: Floats, table: Floats, starts: Ints, heads: int, d: int, yq: Bytes, scales: Floats
) -> None:
    """Self-attention of sources that lie one behind the other: source i from starts[i] to starts[i + 1].

    sums (n, 3d): queries, keys, values -> yq (n, d), scales (n).
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
            _numbers(sums[first + t, : 3 * d], sums_scales[first + t], table[0], table[1], numbers[t])
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
            scales[first + i] = _quantize(mixed.reshape(d), yq[first + i])


@kernel
def remember(sums: Ints, sums_scales: Floats, table: Floats, starts: Ints, rows: Ints, memory: Halves) -> None:
    """Writes the sources' keys and values, sums (n, 2d), into their rows of the memory (r, s, 2, d)."""
    d = memory.shape[3]
    for b in range(starts.size - 1):
        for i in range(starts[b], starts[b + 1]):
            place = memory[rows[b], i - starts[b]]
            _narrow_numbers(sums[i, :d], sums_scales[i], table[0, :d], table[1, :d], place[0])
            _narrow_numbers(sums[i, d:], sums_scales[i], table[0, d:], table[1, d:], place[1])


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
    """Writes the keys and values of the last token of (n) rows into own (r, t, 2, d), and attends to those so far.

    sums (n, 3d): queries, keys, values -> yq (n, d), scales (n).
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
        _numbers(product[:d], scale, column[:d], bias[:d], q)
        _narrow_numbers(product[d : 2 * d], scale, column[d : 2 * d], bias[d : 2 * d], place[0])
        _narrow_numbers(product[2 * d : 3 * d], scale, column[2 * d : 3 * d], bias[2 * d : 3 * d], place[1])
        kv = own.reshape(r, longest, 2, heads, w)
        _attend(q.reshape(heads, w), kv, paths[rows[i]], last + 1, weights, mixed)
        scales[i] = _quantize(mixed.reshape(d), yq[i])


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
    """The attention of (n) rows to the memory (r, s, 2, d) of their sources. sums (n, d) -> yq (n, d), scales (n)."""
    r, longest, _, d = memory.shape
    w = d // heads
    q, mixed, weights = (
        np.empty(d, np.float32),
        np.empty((heads, w), np.float32),
        np.empty((heads, longest), np.float32),
    )
    kv, path = memory.reshape(r, longest, 2, heads, w), np.empty(longest, np.int32)
    for i in range(rows.size):
        _numbers(sums[i, :d], sums_scales[i], table[0], table[1], q)
        path[:] = memories[rows[i]]
        _attend(q.reshape(heads, w), kv, path, lengths[rows[i]], weights, mixed)
        scales[i] = _quantize(mixed.reshape(d), yq[i])


@kernel
def rank(
    sums: Ints,
    sums_scales: Floats,
    column_scales: Floats,
    biases: Floats,
    first: int,
    banned: Ints,
    tokens: Ints,
    logits: NDArray[np.float64],
    tops: Floats,
    totals: Floats,
) -> None:
    """Some columns of the vocabulary, from `first` on: of each row the likeliest tokens so far and their logits, the
    best first, (n, count) both; the largest logit so far, and the sum of all exponentials over its own (n).

    Banned tokens are not among the likeliest, but in the sum.
    """
    columns, count = biases.size, tokens.shape[1]
    blocks = (columns + _BLOCK - 1) // _BLOCK
    row, largest = np.full(blocks * _BLOCK, LOWEST, np.float32), np.empty(blocks, np.float32)
    for i in range(tokens.shape[0]):
        _numbers(sums[i, :columns], sums_scales[i], column_scales, biases, row[:columns])
        for b in range(blocks):
            largest[b] = _largest(row[b * _BLOCK : (b + 1) * _BLOCK])
        top = max(tops[i], _largest(largest))
        total = np.float32(0)
        for j in range(columns):
            total += _exp(row[j] - top)
        tops[i], totals[i] = top, totals[i] * _exp(tops[i] - top) + total
        for token in banned:
            if first <= token < first + columns:
                b = (token - first) // _BLOCK
                row[token - first] = LOWEST
                largest[b] = _largest(row[b * _BLOCK : (b + 1) * _BLOCK])
        for _ in range(count):
            found = _largest(largest)
            if found <= logits[i, count - 1]:
                break
            b = 0
            while largest[b] != found and b < blocks - 1:  # it is there, unless it is nan
                b += 1
            j = b * _BLOCK
            while row[j] != found and j < (b + 1) * _BLOCK - 1:
                j += 1
            at = count - 1
            while at > 0 and logits[i, at - 1] < found:
                logits[i, at], tokens[i, at] = logits[i, at - 1], tokens[i, at - 1]
                at -= 1
            logits[i, at], tokens[i, at] = found, first + j
            row[j] = LOWEST
            largest[b] = _largest(row[b * _BLOCK : (b + 1) * _BLOCK])
