"""Products of int8 matrices, exact in int32, computed with the processor's instructions for them.

oneDNN, which torch uses, packs the weights at every call; with few rows, that takes longer than the product. This
module packs them once, in the order in which a product reads them: the first 4 inputs of each of 64 outputs, then the
next 4 inputs, and so on. Many rows are multiplied 16 at a time by tiles (AMX). Few rows are multiplied by vectors
(AVX-512 VNNI, AVX-VNNI, AVX2) whose sums stay in registers. With few rows, reading the weights from memory takes most
of the time, so they are prefetched. Prefetching goes beyond the end of a product's weights, because the weights of the
next product follow them in memory.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from models.compiled.jit import generated, has, inline, kernel, llvm_function, splat

INPUTS = OUTPUTS = 64  # packed weights have multiples of these
ROWS = 16  # rows of a tile; the memory of x and of sums has to hold a multiple of them
_GROUP = 4 * OUTPUTS  # bytes of the weights of 4 inputs for each of 64 outputs
_FEW = 8  # up to so many rows, vectors are faster than tiles
_VECTORS = 4  # vectors of outputs that are computed together
_AHEAD = 16_384  # bytes by which vectors prefetch weights; all values from 8 to 24 KiB are equally fast

_I8, _I32, _I64, _PTR = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.PointerType()
_VOID = ir.VoidType()

_HAS_TILES = has("amx-int8")
# vpdpbusd adds to each int32 sum 4 products of an unsigned and a signed byte; x is made unsigned by adding 128.
_IS_UNSIGNED = has("avx512vnni") or has("avxvnni")
_LANES = 16 if has("avx512vnni") else 8  # sums in a vector
_MOST = 6 if has("avx512vnni") else 2  # the most rows whose sums fit into registers
_WIDE = _VECTORS * _LANES  # outputs that are computed together
# Tile palette 1: eight tiles of 16 rows of 64 bytes (Intel 64 and IA-32 Architectures SDM, LDTILECFG).
_PALETTE = np.zeros(64, np.uint8)
_PALETTE[0] = 1
_PALETTE[16:32:2] = 64
_PALETTE[48:56] = ROWS


def is_fast() -> bool:
    """Whether this processor multiplies bytes faster than floats."""
    return _IS_UNSIGNED or has("avx2")


def tiles_allowed() -> bool:
    """Asks the operating system to let this process use tiles. False if it refuses, or the processor has no tiles."""
    return _HAS_TILES and bool(torch.cpu._init_amx())


@inline
def packed_size(outputs: int, inputs: int) -> int:
    """Bytes of packed weights. `outputs` is a multiple of 64."""
    return outputs * (inputs + 4)


def pack(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """Packs weights (out, in), both multiples of 64, for `product`: for each group of 64 outputs, the weights, then the
    numbers that making x unsigned adds to the sums. A slice of whole groups is packed weights, too."""
    outputs, inputs = weights.shape
    groups = outputs // OUTPUTS
    blocks = weights.reshape(groups, OUTPUTS, inputs // 4, 4).transpose(0, 2, 1, 3)
    added = 128 * weights.sum(axis=1, dtype=np.int32)
    return np.hstack([blocks.reshape(groups, -1), added.view(np.int8).reshape(groups, -1)]).reshape(-1)


@partial(kernel, exact=True)
def product(
    x: NDArray[np.int8], inputs: int, weights: NDArray[np.int8], sums: NDArray[np.int32], n: int, tiles: bool
) -> None:
    """The first `inputs` bytes of each of n rows of x, times the weights -> n rows of sums, one for each output.

    `weights` begins with the packed weights of this product; more may follow. `tiles`: whether the process may use AMX.
    """
    stride, outputs = x.strides[0], sums.shape[1]
    if tiles and _HAS_TILES and n > _FEW:
        _by_tiles(x.ctypes.data, stride, inputs, weights.ctypes.data, sums.ctypes.data, outputs, n)
    else:
        _by_vectors(x.ctypes.data, stride, inputs, weights.ctypes.data, sums.ctypes.data, outputs, n)


def _instruction(name: str, *kinds: ir.Type) -> Any:
    """A function that calls an LLVM intrinsic without a result. Its arguments are addresses (_PTR), numbers (_I64), and
    constants that are literals in the source (_I8, which names a tile, and _I32)."""

    @generated(types.void, *(types.int64 if kind in (_PTR, _I64) else None for kind in kinds))
    def instruction(builder: Any, *values: Any) -> None:
        def given(kind: ir.Type, value: Any) -> Any:
            if kind is _PTR:
                return builder.inttoptr(value, kind)
            return value if kind is _I64 else kind(value)

        if _HAS_TILES or "tile" not in name:
            builder.call(llvm_function(builder, name, _VOID, kinds), list(map(given, kinds, values)))

    return instruction


_configure = _instruction("llvm.x86.ldtilecfg", _PTR)
_clear = _instruction("llvm.x86.tilezero", _I8)
_load = _instruction("llvm.x86.tileloadd64", _I8, _PTR, _I64)
_multiply = _instruction("llvm.x86.tdpbssd", _I8, _I8, _I8)
_store = _instruction("llvm.x86.tilestored64", _I8, _PTR, _I64)
_release = _instruction("llvm.x86.tilerelease")
_prefetch = _instruction("llvm.prefetch.p0", _PTR, _I32, _I32, _I32)


@inline
def _clear_sums() -> None:
    _clear(0)
    _clear(1)
    _clear(2)
    _clear(3)


@inline
def _ask(address: int, count: int, apart: int) -> None:
    """Prefetches `count` cache lines of 64 bytes, `apart` bytes from one to the next, into the second-level cache."""
    for i in range(count):
        _prefetch(address + i * apart, 0, 2, 1)


@inline
def _by_tiles(x: int, stride: int, inputs: int, weights: int, sums: int, outputs: int, n: int) -> None:
    """Computes one group of outputs at a time. For 32 rows, it computes the two halves of the group one after the
    other. While it computes the first rows of a group, it prefetches the weights of the next group."""
    _configure(_PALETTE.ctypes.data)
    group = packed_size(OUTPUTS, inputs)
    for g in range(0, outputs, OUTPUTS):
        for i in range(0, n, 2 * ROWS):
            a, w, out = x + i * stride, weights + g // OUTPUTS * group, sums + 4 * (i * outputs + g)
            ahead = group if i == 0 else 0
            if i + ROWS < n:
                _tiles_of_32_rows(a, stride, inputs, w, out, 4 * outputs, ahead)
                _tiles_of_32_rows(a, stride, inputs, w + 128, out + 128, 4 * outputs, ahead)
            else:
                _tiles_of_16_rows(a, stride, inputs, w, out, 4 * outputs, ahead)
    _release()


@inline
def _tiles_of_32_rows(a: int, stride: int, inputs: int, w: int, sums: int, apart: int, ahead: int) -> None:
    """Tiles 0 to 3 hold sums (two tiles of rows by two of outputs), 4 and 5 hold rows, 6 and 7 hold weights."""
    _clear_sums()
    for k in range(0, inputs, 64):
        wk = w + OUTPUTS * k
        if ahead:
            _ask(wk + ahead, 16, _GROUP)
            _ask(wk + ahead + 64, 16, _GROUP)
        _load(4, a + k, stride)
        _load(6, wk, _GROUP)
        _load(7, wk + 64, _GROUP)
        _multiply(0, 4, 6)
        _multiply(1, 4, 7)
        _load(5, a + ROWS * stride + k, stride)
        _multiply(2, 5, 6)
        _multiply(3, 5, 7)
    _store(0, sums, apart)
    _store(1, sums + 64, apart)
    _store(2, sums + ROWS * apart, apart)
    _store(3, sums + ROWS * apart + 64, apart)


@inline
def _tiles_of_16_rows(a: int, stride: int, inputs: int, w: int, sums: int, apart: int, ahead: int) -> None:
    """Tiles 0 to 3 hold sums (four tiles of outputs), 4 holds rows, 5 to 7 hold weights."""
    _clear_sums()
    for k in range(0, inputs, 64):
        wk = w + OUTPUTS * k
        if ahead:
            _ask(wk + ahead, 64, 64)
        _load(4, a + k, stride)
        _load(5, wk, _GROUP)
        _multiply(0, 4, 5)
        _load(6, wk + 64, _GROUP)
        _multiply(1, 4, 6)
        _load(7, wk + 128, _GROUP)
        _multiply(2, 4, 7)
        _load(5, wk + 192, _GROUP)
        _multiply(3, 4, 5)
    _store(0, sums, apart)
    _store(1, sums + 64, apart)
    _store(2, sums + 128, apart)
    _store(3, sums + 192, apart)


@inline
def _by_vectors(x: int, stride: int, inputs: int, weights: int, sums: int, outputs: int, n: int) -> None:
    """Computes _WIDE outputs of up to _MOST rows at a time."""
    for g in range(0, outputs, _WIDE):
        group = weights + packed_size(g // OUTPUTS * OUTPUTS, inputs)
        w, added = group + 4 * (g % OUTPUTS), group + OUTPUTS * inputs + 4 * (g % OUTPUTS)
        for i in range(0, n, _MOST):
            out = sums + 4 * (i * outputs + g)
            _some_rows(min(_MOST, n - i), x + i * stride, stride, inputs // 4, w, added, out, 4 * outputs)


@generated(types.void, *[types.int64] * 8)
def _some_rows(builder: Any, rows: Any, *others: Any) -> None:
    """1 to _MOST rows of x times the weights of _WIDE outputs. The arguments after `rows` are the address of x, the
    bytes from one row of x to the next, a quarter of the inputs, the addresses of the weights, of the numbers that
    making x unsigned adds, and of the sums, and the bytes from one row of sums to the next."""
    for count in range(1, _MOST + 1):
        with builder.if_then(builder.icmp_signed("==", rows, _I64(count))):
            _generate_rows(builder, count, *others)


def _generate_rows(
    builder: Any, rows: int, x: Any, stride: Any, fours: Any, weights: Any, added: Any, sums: Any, apart: Any
) -> None:
    def plus(address: Any, offset: Any) -> Any:
        return builder.add(address, _I64(offset) if isinstance(offset, int) else offset)

    def load(address: Any, kind: ir.Type) -> Any:
        return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)

    vector = ir.VectorType(_I32, _LANES)
    columns = [4 * _LANES * j for j in range(_VECTORS)]  # offset of each vector in bytes, for weights and sums
    totals = [[cgutils.alloca_once_value(builder, vector(None)) for _ in columns] for _ in range(rows)]
    begins = [plus(x, builder.mul(stride, _I64(row))) for row in range(rows)]
    ask = llvm_function(builder, "llvm.prefetch.p0", _VOID, [_PTR, _I32, _I32, _I32])
    with cgutils.for_range(builder, fours) as loop:
        w = plus(weights, builder.mul(loop.index, _I64(_GROUP)))
        for column in columns[:: 16 // _LANES]:
            builder.call(ask, [builder.inttoptr(plus(w, _AHEAD + column), _PTR), _I32(0), _I32(2), _I32(1)])
        loaded = [load(plus(w, column), vector) for column in columns]
        for begin, sums_of_row in zip(begins, totals, strict=True):
            four = load(plus(begin, builder.mul(loop.index, _I64(4))), _I32)
            if _IS_UNSIGNED:
                four = builder.xor(four, _I32(0x80808080))  # adds 128 to each byte
            everywhere = splat(builder, four, vector)
            for total, each in zip(sums_of_row, loaded, strict=True):
                builder.store(_dot(builder, builder.load(total), everywhere, each), total)
    for row, sums_of_row in enumerate(totals):
        out = plus(sums, builder.mul(apart, _I64(row)))
        for total, column in zip(sums_of_row, columns, strict=True):
            found = builder.load(total)
            if _IS_UNSIGNED:
                found = builder.sub(found, load(plus(added, column), vector))
            builder.store(found, builder.inttoptr(plus(out, column), vector.as_pointer()), align=1)


def _dot(builder: Any, sums: Any, x: Any, weights: Any) -> Any:
    """Adds to each int32 sum its four products of bytes."""
    kind = sums.type
    if _IS_UNSIGNED:
        bits = 32 * _LANES
        quads = ir.VectorType(_I8, 4 * _LANES)
        name = f"llvm.x86.avx512.vpdpbusd.{bits}"
        function = llvm_function(builder, name, kind, [kind, quads, quads])
        return builder.call(function, [sums, builder.bitcast(x, quads), builder.bitcast(weights, quads)])
    pairs = ir.VectorType(ir.IntType(16), 2 * _LANES)
    eight = pairs([8] * (2 * _LANES))

    def halves(bytes_: Any) -> list[Any]:
        """The even bytes and the odd bytes, as 16-bit numbers."""
        words = builder.bitcast(bytes_, pairs)
        return [builder.ashr(builder.shl(words, eight), eight), builder.ashr(words, eight)]

    for left, right in zip(halves(x), halves(weights), strict=True):
        sums = builder.add(sums, _add_products(builder, left, right, kind))
    return sums


def _add_products(builder: Any, left: Any, right: Any, kind: ir.Type) -> Any:
    """Multiplies 2n pairs of 16-bit numbers, and adds each two neighbouring products to one of n 32-bit sums."""
    if has("avx2"):
        function = llvm_function(builder, "llvm.x86.avx2.pmadd.wd", kind, [left.type, left.type])
        return builder.call(function, [left, right])
    sixteen = kind([16] * _LANES)
    left, right = builder.bitcast(left, kind), builder.bitcast(right, kind)
    odd = builder.mul(builder.ashr(left, sixteen), builder.ashr(right, sixteen))
    left, right = builder.shl(left, sixteen), builder.shl(right, sixteen)
    return builder.add(odd, builder.mul(builder.ashr(left, sixteen), builder.ashr(right, sixteen)))
