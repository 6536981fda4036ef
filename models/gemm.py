"""Products of int8 matrices for processors with AVX-512 VNNI, in machine code that LLVM makes when first asked for.

oneDNN's, by way of torch, packs the weights anew at every call, which with few rows takes longer than the product. Here
they are packed once, in the order in which they are read: of 64 outputs the first 4 inputs each, then the next 4. The
instruction, vpdpbusd, adds to 16 int32 the sums of 4 products each, of an unsigned and a signed byte. Up to 6 rows × 64
outputs stay in registers. With few rows the weights' way from memory is what takes the time, so they are asked for
ahead.

Activations are made unsigned by adding 128, and what that adds to each sum is taken off again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding as llvm
from numpy.typing import NDArray

_ROWS, _VECTORS = 6, 4  # in registers at once; a vector is 16 sums
_OUTPUTS = 16 * _VECTORS
_AHEAD = 16_384  # bytes of weights; from 8 to 24 KiB all are as fast

Multiply = Callable[[int, int, int, int, int, int, int, int, int], None]


class Packed:
    """Weights (out, in) in bytes; `outputs` is their number, rounded up. `in` is a multiple of 4."""

    def __init__(self, weights: NDArray[np.int8], multiply: Multiply) -> None:
        count, self._inputs = weights.shape
        self.outputs = -(-count // _OUTPUTS) * _OUTPUTS
        padded = np.zeros((self.outputs, self._inputs), np.int8)
        padded[:count] = weights
        # Where a vector begins at a multiple of its size, it is in one line of the processor's cache.
        memory = np.empty(padded.size + 64, np.int8)
        begin = -memory.ctypes.data % 64
        self._weights = memory[begin : begin + padded.size]
        blocks = padded.reshape(self.outputs // _OUTPUTS, _OUTPUTS, self._inputs // 4, 4).transpose(0, 2, 1, 3)
        self._weights[:] = blocks.reshape(-1)
        self._added = 128 * padded.astype(np.int32).sum(axis=1, dtype=np.int32)
        self._addresses = self._weights.ctypes.data, self._added.ctypes.data
        self._multiply = multiply

    def __call__(self, rows: int, x: int, stride: int, sums: int) -> None:
        """Bytes (rows, in) at the address x, rows `stride` apart -> int32 (rows, outputs) at the address `sums`."""
        weights, added = self._addresses
        groups = self.outputs // _OUTPUTS
        self._multiply(x, weights, added, sums, rows, self._inputs // 4, groups, stride, self.outputs)


@cache
def multiply() -> Multiply | None:
    """The product's machine code, or None where the processor lacks the instruction. It runs without the GIL."""
    features = llvm.get_host_cpu_features()
    if not features.get("avx512vnni"):
        return None
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(_assembly())
    module.verify()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=3)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 5)
    compiled: Any = function(engine.get_function_address("multiply"))
    compiled.engine = engine  # whose memory the code is in
    return compiled  # type: ignore[no-any-return]


def _assembly() -> str:
    tails = "\n".join(f"    i64 {rows}, label %tail{rows}" for rows in range(1, _ROWS))
    calls = "\n".join(
        f"tail{rows}:\n  call void @rows{rows}(ptr %at, ptr %wg, ptr %cg, ptr %ot, i64 %k4, i64 %lda, i64 %ldo)\n"
        "  br label %next"
        for rows in range(1, _ROWS)
    )
    # For each group of outputs, whose weights then stay in the cache, all rows.
    return f"""
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
declare <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, <64 x i8>, <64 x i8>)
{chr(10).join(_rows(rows) for rows in range(1, _ROWS + 1))}
define void @multiply(
    ptr %a, ptr %w, ptr %c, ptr %out, i64 %n, i64 %k4, i64 %groups, i64 %lda, i64 %ldo) {{
entry:
  %wsize = mul i64 %k4, {4 * _OUTPUTS}
  br label %group
group:
  %g = phi i64 [0, %entry], [%g1, %next]
  %wo = mul i64 %g, %wsize
  %wg = getelementptr i8, ptr %w, i64 %wo
  %co = mul i64 %g, {_OUTPUTS}
  %cg = getelementptr i32, ptr %c, i64 %co
  %og = getelementptr i32, ptr %out, i64 %co
  br label %check
check:
  %i = phi i64 [0, %group], [%end, %full]
  %ao = mul i64 %i, %lda
  %at = getelementptr i8, ptr %a, i64 %ao
  %oo = mul i64 %i, %ldo
  %ot = getelementptr i32, ptr %og, i64 %oo
  %end = add i64 %i, {_ROWS}
  %whole = icmp ule i64 %end, %n
  br i1 %whole, label %full, label %rest
full:
  call void @rows{_ROWS}(ptr %at, ptr %wg, ptr %cg, ptr %ot, i64 %k4, i64 %lda, i64 %ldo)
  br label %check
rest:
  %left = sub i64 %n, %i
  switch i64 %left, label %next [
{tails}
  ]
{calls}
next:
  %g1 = add i64 %g, 1
  %more = icmp ult i64 %g1, %groups
  br i1 %more, label %group, label %done
done:
  ret void
}}
"""


def _rows(rows: int) -> str:
    """A function for so many rows and one group of outputs."""
    lines = [f"define internal void @rows{rows}(ptr %a, ptr %w, ptr %c, ptr %out, i64 %k4, i64 %lda, i64 %ldo) {{"]
    say = lines.append
    say("entry:")
    for r in range(rows):
        say(f"  %ao{r} = mul i64 %lda, {r}")
        say(f"  %a{r} = getelementptr i8, ptr %a, i64 %ao{r}")
    say("  br label %loop\nloop:\n  %k = phi i64 [0, %entry], [%k1, %loop]")
    for r in range(rows):
        for j in range(_VECTORS):
            say(f"  %s{r}_{j} = phi <16 x i32> [zeroinitializer, %entry], [%t{r}_{j}, %loop]")
    say(f"  %wo = mul i64 %k, {4 * _OUTPUTS}\n  %wk = getelementptr i8, ptr %w, i64 %wo\n  %ak = shl i64 %k, 2")
    for j in range(_VECTORS):
        say(f"  %ahead{j} = getelementptr i8, ptr %wk, i64 {_AHEAD + 64 * j}")
        say(f"  call void @llvm.prefetch.p0(ptr %ahead{j}, i32 0, i32 2, i32 1)")
        say(f"  %wp{j} = getelementptr i8, ptr %wk, i64 {64 * j}")
        say(f"  %v{j} = load <64 x i8>, ptr %wp{j}, align 64")
    for r in range(rows):
        say(f"  %ap{r} = getelementptr i8, ptr %a{r}, i64 %ak")
        say(f"  %signed{r} = load i32, ptr %ap{r}, align 1")
        say(f"  %four{r} = xor i32 %signed{r}, {0x80808080 - (1 << 32)}")  # adds 128 to each byte
        say(f"  %one{r} = insertelement <16 x i32> poison, i32 %four{r}, i64 0")
        say(f"  %all{r} = shufflevector <16 x i32> %one{r}, <16 x i32> poison, <16 x i32> zeroinitializer")
        say(f"  %b{r} = bitcast <16 x i32> %all{r} to <64 x i8>")
        for j in range(_VECTORS):
            say(
                f"  %t{r}_{j} = call <16 x i32> @llvm.x86.avx512.vpdpbusd.512("
                f"<16 x i32> %s{r}_{j}, <64 x i8> %b{r}, <64 x i8> %v{j})"
            )
    say("  %k1 = add i64 %k, 1\n  %more = icmp ult i64 %k1, %k4\n  br i1 %more, label %loop, label %done\ndone:")
    for j in range(_VECTORS):
        say(f"  %cp{j} = getelementptr i32, ptr %c, i64 {16 * j}")
        say(f"  %c{j} = load <16 x i32>, ptr %cp{j}, align 4")
    for r in range(rows):
        say(f"  %oo{r} = mul i64 %ldo, {r}")
        for j in range(_VECTORS):
            say(f"  %oi{r}_{j} = add i64 %oo{r}, {16 * j}")
            say(f"  %op{r}_{j} = getelementptr i32, ptr %out, i64 %oi{r}_{j}")
            say(f"  %d{r}_{j} = sub <16 x i32> %t{r}_{j}, %c{j}")
            say(f"  store <16 x i32> %d{r}_{j}, ptr %op{r}_{j}, align 4")
    say("  ret void\n}")
    return "\n".join(lines)
