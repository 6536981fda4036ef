"""What a CPU does between two products of int8 matrices, each in one pass over the rows, compiled by Numba.

A product of int8 matrices leaves int32 sums. To be a number, a sum is multiplied by the scale of its row (of the
activations) and that of its column (of the weights), and gets its bias; and to enter the next product, a row is divided
by its own scale, which makes its largest value 127 (dynamic quantization, symmetric, a scale per row, so that the
numbers of a sentence do not depend on its neighbours). Here both happen in the same pass as what lies between them.

Attention, which lies between products too, is models.compiled.attention.

In the shapes: n rows, d the model's width, h heads, v target vocabulary; r, t and s as in models.network.cache. `table`
holds in its rows, per column, the scale and the bias of the product that made `sums`, and, for a norm, its weight and
bias, and what a row of ones would have as its product without the bias. Numbers are float32.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.compiled.jit import kernel
from models.compiled.rows import Bytes, Floats, Ints, dequantize, exp, greatest, quantize, quantize_between

LOWEST = np.float32(-3e38)
_BLOCK = 64  # logits whose largest is kept apart, so that taking the best out does not look at all others again

ACTIVATION_CODES = {"swish": 0, "silu": 0, "relu": 1, "gelu": 2}


@kernel
def embed(
    tokens: Ints, positions: Ints, embeddings: Floats, sinusoids: Floats, x: Floats, xq: Bytes, scales: Floats
) -> None:
    """(n) tokens at (n) positions -> their embeddings, and those quantized: x, xq (n, d), scales (n)."""
    for i in range(tokens.size):
        row, token, position = x[i], embeddings[tokens[i]], sinusoids[positions[i]]
        for j in range(row.size):
            row[j] = token[j] + position[j]
        scales[i] = quantize(row, xq[i])


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
        scales[i] = quantize(row, xq[i])


@kernel
def activate(
    sums: Ints, sums_scales: Floats, table: Floats, activation: int, yq: Bytes, scales: Floats, middles: Floats
) -> None:
    """The activation, by its code, of the product, quantized between its ends: yq (n, inner), scales, middles (n).

    Of all that is quantized it is the most lopsided; around 0, half of the bytes would hardly be used.
    """
    row = np.empty(table.shape[1], np.float32)
    for i in range(sums.shape[0]):
        dequantize(sums[i], sums_scales[i], table[0], table[1], row)
        if activation == 0:
            for j in range(row.size):
                row[j] = row[j] / (np.float32(1) + exp(-row[j]))
        elif activation == 1:
            for j in range(row.size):
                row[j] = max(row[j], np.float32(0))
        else:
            for j in range(row.size):
                row[j] = row[j] * np.float32(0.5 * math.erfc(-row[j] * math.sqrt(0.5)))
        scales[i], middles[i] = quantize_between(row, yq[i])


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
        dequantize(sums[i, :columns], sums_scales[i], column_scales, biases, row[:columns])
        for b in range(blocks):
            largest[b] = greatest(row[b * _BLOCK : (b + 1) * _BLOCK])
        top = max(tops[i], greatest(largest))
        total = np.float32(0)
        for j in range(columns):
            total += exp(row[j] - top)
        tops[i], totals[i] = top, totals[i] * exp(tops[i] - top) + total
        for token in banned:
            if first <= token < first + columns:
                b = (token - first) // _BLOCK
                row[token - first] = LOWEST
                largest[b] = greatest(row[b * _BLOCK : (b + 1) * _BLOCK])
        for _ in range(count):
            found = greatest(largest)
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
            largest[b] = greatest(row[b * _BLOCK : (b + 1) * _BLOCK])
