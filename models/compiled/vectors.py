"""Sums over the width of a head, 16 numbers at a time.

LLVM vectorizes plain loops, too, but adds checks that take longer than the few vectors of a head.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from models.compiled.jit import generated, llvm_function, splat

LANES = 16

_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_FLOATS, _HALVES = ir.VectorType(_F32, LANES), ir.VectorType(_I16, LANES)


def _load(builder: Any, address: Any, index: Any, kind: ir.VectorType) -> Any:
    """Loads 16 floats, or 16 bfloat16 converted to floats, from index `index` on."""
    size = 4 if kind is _FLOATS else 2
    place = builder.add(address, builder.mul(index, _I64(size)))
    numbers = builder.load(builder.inttoptr(place, kind.as_pointer()), align=size)
    if kind is _FLOATS:
        return numbers
    wide = ir.VectorType(_I32, LANES)
    return builder.bitcast(builder.shl(builder.zext(numbers, wide), wide([16] * LANES)), _FLOATS)


def _multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))


@generated(types.float32, types.int64, types.int64, types.int64)
def dot_halves(builder: Any, a: Any, b: Any, count: Any) -> Any:
    """The dot product of `count` floats at address a and as many bfloat16 at address b; `count` is a multiple of 16."""
    total = cgutils.alloca_once_value(builder, _FLOATS(None))
    with cgutils.for_range_slice(builder, _I64(0), count, _I64(LANES), _I64) as (index, _):
        x, y = _load(builder, a, index, _FLOATS), _load(builder, b, index, _HALVES)
        builder.store(_multiply_add(builder, x, y, builder.load(total)), total)
    reduce = llvm_function(builder, f"llvm.vector.reduce.fadd.v{LANES}f32", _F32, [_F32, _FLOATS])
    return builder.call(reduce, [_F32(0.0), builder.load(total)], fastmath=("reassoc",))


@generated(types.void, types.int64, types.float32, types.int64, types.int64)
def add_halves(builder: Any, out: Any, factor: Any, b: Any, count: Any) -> None:
    """Adds, to each of `count` floats at address out, the factor times the bfloat16 at address b; `count` is a multiple
    of 16."""
    everywhere = splat(builder, factor, _FLOATS)
    with cgutils.for_range_slice(builder, _I64(0), count, _I64(LANES), _I64) as (index, _):
        before, number = _load(builder, out, index, _FLOATS), _load(builder, b, index, _HALVES)
        place = builder.inttoptr(builder.add(out, builder.mul(index, _I64(4))), _FLOATS.as_pointer())
        builder.store(_multiply_add(builder, everywhere, number, before), place, align=4)
