"""Operations of kernels on one row: dequantize, quantize, conversion to and from bfloat16, maximum, exponential.

`scales` and `biases` are those of the product's columns. Keys and values are bfloat16: the upper half of a float32,
stored as uint16.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.compiled.jit import inline

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]
Ints = NDArray[np.int32]
Bytes = NDArray[np.int8]

_TINY = np.int32(0x0DA24260)  # the bits of 1e-30, the smallest maximum of a row, so that no scale is 0


@inline
def exp(x: np.float32) -> np.float32:
    """The exponential, with a relative error of at most 3e-7: 2^(n + f), where a polynomial approximates 2^f for f from
    -1/2 to 1/2, and n is added to the bits of the exponent. LLVM would not vectorize math.exp."""
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
def widen(x: np.uint16) -> np.float32:
    """bfloat16 -> float32"""
    return np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)


@inline
def narrow(x: np.float32) -> np.uint16:
    """float32 -> bfloat16, rounded to nearest"""
    return np.uint16((np.float32(x).view(np.uint32) + np.uint32(0x8000)) >> np.uint32(16))


@inline
def _ordered(bits: np.int32) -> np.int32:
    """Converts the bits of floats to integers that have the same order as the floats; and such integers back."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@inline
def greatest(values: Floats) -> np.float32:
    """The maximum. It compares bits as integers, because LLVM vectorizes the maximum of integers (0.05 ns per value),
    but not that of floats (0.5 ns)."""
    bits = values.view(np.int32)
    most = np.int32(-0x7FFFFFFF)
    for j in range(bits.size):
        most = max(most, _ordered(bits[j]))
    return np.int32(_ordered(most)).view(np.float32)


@inline
def dequantize(sums: Ints, scale: np.float32, scales: Floats, biases: Floats, out: Floats) -> None:
    """Writes the numbers that a row's sums stand for. `scale` is that of the row."""
    for j in range(out.size):
        out[j] = np.float32(sums[j]) * (scale * scales[j]) + biases[j]


@inline
def dequantize_narrow(sums: Ints, scale: np.float32, scales: Floats, biases: Floats, out: Halves) -> None:
    """Like dequantize, but writes bfloat16."""
    for j in range(out.size):
        out[j] = narrow(np.float32(sums[j]) * (scale * scales[j]) + biases[j])


@inline
def quantize(row: Floats, out: Bytes) -> np.float32:
    """Writes the row's bytes; returns its scale."""
    bits = row.view(np.int32)  # without signs, bits have the same order as floats; see `greatest` for why bits
    most = _TINY
    for j in range(row.size):
        most = max(most, bits[j] & np.int32(0x7FFFFFFF))
    largest = np.int32(most).view(np.float32)
    inverse = np.float32(127.0) / largest
    for j in range(row.size):
        out[j] = np.int8(np.int32(np.rint(row[j] * inverse)))
    return largest / np.float32(127.0)


@inline
def quantize_between(row: Floats, out: Bytes) -> tuple[np.float32, np.float32]:
    """Like quantize, but byte 0 stands for the middle between the row's least and greatest value. Returns the scale and
    this middle."""
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
