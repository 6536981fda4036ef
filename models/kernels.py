"""What a CPU does between two products of int8 matrices, each in one pass over the rows, compiled by Numba.

A product of int8 matrices leaves int32 sums. To be a number, a sum is multiplied by the scale of its row (of the
activations) and that of its column (of the weights), and gets its bias; and to enter the next product, a row is divided
by its own scale, which makes its largest value 127 (dynamic quantization, symmetric, a scale per row, so that the
numbers of a sentence do not depend on its neighbours). Here both happen in the same pass as what lies between them.

In the shapes: n rows, d the model's width, h heads, v target vocabulary; r, t and s as in models.cache. `table` holds
in its rows, per column, the scale and the bias of the product that made `sums`, and, for a norm, its weight and bias.
Keys and values are bfloat16, as the upper halves of float32 in uint16. Everything else is float32.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.jit import inline, kernel

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]
Ints = NDArray[np.int32]
Bytes = NDArray[np.int8]

_LOWEST = np.float32(-3e38)
_SMALLEST = np.int32(0x0DA24260)  # the bits of 1e-30, so that a row of zeros has a scale
_BLOCK = 64  # logits whose largest is kept apart, so that taking the best out does not look at all others again

ACTIVATIONS = {"swish": 0, "silu": 0, "relu": 1, "gelu": 2}


@inline
def _exp(x: np.float32) -> np.float32:
    """To a relative error of 2e-7: 2^n by the exponent's bits, times Cephes' polynomial of expf. math.exp would not be
    vectorized."""
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    n = np.rint(x * np.float32(1.44269504088896341))
    r = x - n * np.float32(0.693359375) - n * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)  # type: ignore[no-any-return]


@inline
def _widen(x: np.uint16) -> np.float32:
    return np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)


@inline
def _narrow(x: np.float32) -> np.uint16:
    return np.uint16((np.float32(x).view(np.uint32) + np.uint32(0x8000)) >> np.uint32(16))


@inline
def _largest(values: Floats) -> np.float32:
    """Compares bits as integers: LLVM vectorizes their maximum but not that of floats (0.05 ns a value against 0.5)."""
    bits = values.view(np.int32)
    most = np.int32(-0x7FFFFFFF)
    for j in range(bits.size):
        most = max(most, bits[j] ^ ((bits[j] >> np.int32(31)) & np.int32(0x7FFFFFFF)))  # in the order of the floats
    return np.int32(most ^ ((most >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32)


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
    most = _SMALLEST
    for j in range(row.size):
        most = max(most, bits[j] & np.int32(0x7FFFFFFF))
    largest = np.int32(most).view(np.float32)
    inverse = np.float32(127.0) / largest
    for j in range(row.size):
        out[j] = np.int8(np.int32(np.rint(row[j] * inverse)))
    return largest / np.float32(127.0)


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
    total = np.float32(0)
    for j in range(a.size):
        total += a[j] * _widen(b[j])
    return total


@inline
def _add(out: Floats, factor: np.float32, b: Halves) -> None:
    for j in range(out.size):
        out[j] += factor * _widen(b[j])


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
    sums: Ints, sums_scales: Floats, table: Floats, epsilon: np.float32, x: Floats, xq: Bytes, scales: Floats
) -> None:
    """x <- layer norm of x plus the product, and that quantized: x, xq (n, d), scales (n)."""
    d = x.shape[1]
    column, bias, weight, shift = table[0], table[1], table[2], table[3]
    for i in range(x.shape[0]):
        row, product, scale = x[i], sums[i], sums_scales[i]
        total = np.float32(0)
        for j in range(d):
            value = row[j] + np.float32(product[j]) * (scale * column[j]) + bias[j]
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
def activate(sums: Ints, sums_scales: Floats, table: Floats, activation: int, yq: Bytes, scales: Floats) -> None:
    """The activation (of ACTIVATIONS) of the product, quantized: yq (n, inner), scales (n)."""
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
        scales[i] = _quantize(row, yq[i])


@kernel
def attend_source(
    sums: Ints, sums_scales: Floats, table: Floats, starts: Ints, heads: int, d: int, yq: Bytes, scales: Floats
) -> None:
    """Self-attention of sources that lie one behind the other: source i from starts[i] to starts[i + 1].

    sums (n, 3d): queries, keys, values -> yq (n, d), scales (n).
    """
    w = d // heads
    longest = 0
    for b in range(starts.size - 1):
        longest = max(longest, starts[b + 1] - starts[b])
    y = np.empty((longest, 3 * d), np.float32)
    mixed, weights = np.empty(d, np.float32), np.empty(longest, np.float32)
    for b in range(starts.size - 1):
        first, length = starts[b], starts[b + 1] - starts[b]
        for t in range(length):
            _numbers(sums[first + t], sums_scales[first + t], table[0], table[1], y[t])
        for i in range(length):
            for h in range(heads):
                here, there = h * w, h * w + w
                query, head = y[i, here:there], mixed[here:there]
                for t in range(length):
                    key = y[t, d + here : d + there]
                    total = np.float32(0)
                    for j in range(w):
                        total += query[j] * key[j]
                    weights[t] = total
                inverse = _exponentials(weights, length)
                head[:] = np.float32(0)
                for t in range(length):
                    value, weight = y[t, 2 * d + here : 2 * d + there], weights[t] * inverse
                    for j in range(w):
                        head[j] += weight * value[j]
            scales[first + i] = _quantize(mixed, yq[first + i])


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
    d = own.shape[3]
    w = d // heads
    q, mixed, weights = np.empty(d, np.float32), np.empty(d, np.float32), np.empty(own.shape[1], np.float32)
    column, bias = table[0], table[1]
    for i in range(rows.size):
        product, scale, last = sums[i], sums_scales[i], positions[rows[i]]
        path, place = paths[rows[i]], own[rows[i], last]
        _numbers(product[:d], scale, column[:d], bias[:d], q)
        _narrow_numbers(product[d : 2 * d], scale, column[d : 2 * d], bias[d : 2 * d], place[0])
        _narrow_numbers(product[2 * d :], scale, column[2 * d :], bias[2 * d :], place[1])
        for h in range(heads):
            here, there = h * w, h * w + w
            head = mixed[here:there]
            for t in range(last + 1):
                weights[t] = _dot(q[here:there], own[path[t], t, 0, here:there])
            inverse = _exponentials(weights, last + 1)
            head[:] = np.float32(0)
            for t in range(last + 1):
                _add(head, weights[t] * inverse, own[path[t], t, 1, here:there])
        scales[i] = _quantize(mixed, yq[i])


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
    d = memory.shape[3]
    w = d // heads
    q, mixed, weights = np.empty(d, np.float32), np.empty(d, np.float32), np.empty(memory.shape[1], np.float32)
    for i in range(rows.size):
        _numbers(sums[i], sums_scales[i], table[0], table[1], q)
        source, length = memory[memories[rows[i]]], lengths[rows[i]]
        for h in range(heads):
            here, there = h * w, h * w + w
            head = mixed[here:there]
            for t in range(length):
                weights[t] = _dot(q[here:there], source[t, 0, here:there])
            inverse = _exponentials(weights, length)
            head[:] = np.float32(0)
            for t in range(length):
                _add(head, weights[t] * inverse, source[t, 1, here:there])
        scales[i] = _quantize(mixed, yq[i])


@kernel
def best(
    sums: Ints,
    sums_scales: Floats,
    table: Floats,
    vocabulary: int,
    banned: Ints,
    tokens: Ints,
    scores: NDArray[np.float64],
) -> None:
    """The likeliest tokens of each row and their log-probabilities: (n, v) -> twice (n, count).

    Banned tokens are not among them; log-probabilities are those before anything is banned.
    """
    count = tokens.shape[1]
    blocks = (vocabulary + _BLOCK - 1) // _BLOCK
    logits, tops = np.full(blocks * _BLOCK, _LOWEST, np.float32), np.empty(blocks, np.float32)
    for i in range(sums.shape[0]):
        _numbers(sums[i], sums_scales[i], table[0], table[1], logits[:vocabulary])
        for b in range(blocks):
            tops[b] = _largest(logits[b * _BLOCK : (b + 1) * _BLOCK])
        top = _largest(tops)
        total = np.float32(0)
        for j in range(vocabulary):
            total += _exp(logits[j] - top)
        norm = top + np.float32(math.log(total))
        for j in banned:
            logits[j] = _LOWEST
            b = j // _BLOCK
            tops[b] = _largest(logits[b * _BLOCK : (b + 1) * _BLOCK])
        for c in range(count):
            top = _largest(tops)
            b = 0
            while tops[b] != top and b < blocks - 1:  # it is there, unless it is nan
                b += 1
            j = b * _BLOCK
            while logits[j] != top and j < (b + 1) * _BLOCK - 1:
                j += 1
            tokens[i, c], scores[i, c] = j, top - norm
            logits[j] = _LOWEST
            tops[b] = _largest(logits[b * _BLOCK : (b + 1) * _BLOCK])
