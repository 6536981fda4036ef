"""The operations between two products of int8 matrices on a CPU, each in one pass over the rows, compiled by Numba.

The result of a product of int8 matrices is int32 sums. To dequantize a sum, it is multiplied by the scale of its row
(of the activations) and the scale of its column (of the weights), and the bias is added. Before the next product, each
row is quantized: it is divided by a scale that makes its largest absolute value 127 (dynamic symmetric quantization).
Every row has a scale of its own, so the numbers of a sentence do not depend on the other sentences of the batch. The
kernels dequantize, compute and quantize in the same pass.

Attention, which is also between products, is in models.compiled.attention.

Shapes: n rows, d the model's width, h heads, v target vocabulary; r, t and s as in models.network.cache. The rows of
`table` are, for each column of the product that made `sums`: its scale; its bias; if a layer norm follows, the norm's
weight and the norm's bias; and the product of a row of ones without the bias. Numbers are float32.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.compiled.jit import kernel
from models.compiled.rows import Bytes, Floats, Ints, dequantize, exp, greatest, quantize, quantize_between

LOWEST = np.float32(-3e38)
_BLOCK = 64  # logits in a block; the largest of each block is kept, so that removing the best rescans one block only

ACTIVATION_CODES = {"swish": 0, "silu": 0, "relu": 1, "gelu": 2}


@kernel
def embed(
    tokens: Ints, positions: Ints, embeddings: Floats, sinusoids: Floats, x: Floats, xq: Bytes, scales: Floats
) -> None:
    """(n) tokens at (n) positions -> their embeddings x (n, d), and these quantized: xq (n, d), scales (n)."""
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
    """x <- layer norm of (x + the product), x (n, d), and this quantized: xq (n, d), scales (n). `middles` (n): for
    each row that was multiplied, the number that its byte 0 stands for."""
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
    """The product -> the activation function of it, by its code in ACTIVATION_CODES, quantized between the row's least
    and greatest values: yq (n, inner), scales (n), middles (n).

    Activations are far from symmetric around 0: with symmetric quantization half of the bytes would hardly be used.
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
    """Ranks the logits of some columns of the vocabulary, from column `first` on, together with those ranked before.

    Updates, for each row: `tokens` and `logits` (n, count), the likeliest tokens so far and their logits, the best
    first; `tops` (n), the largest logit so far; `totals` (n), the sum of exp(logit - top) so far. Banned tokens are
    left out of `tokens`, but counted in `totals`.
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
            while largest[b] != found and b < blocks - 1:  # some block has it, unless it is nan
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
