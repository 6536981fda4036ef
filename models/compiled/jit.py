"""Compiles functions with Numba at their first call. They run without the GIL, and are kept on disk for other
processes."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

# Functions of these files are compiled into one another. Numba's cache notices changes of a function's own file only,
# so the name of each entry contains a checksum of all these files.
_MODELS = Path(__file__).parents[1]
_SOURCES = (  # below models/
    "compiled/attention.py",
    "compiled/gemm.py",
    "compiled/jit.py",
    "compiled/kernels.py",
    "compiled/rows.py",
    "compiled/vectors.py",
    "engine/search.py",
    "network/int8.py",
    "network/quantize.py",
)


def entry(function: F, *, exact: bool = False) -> F:
    """Compiles a function that Python calls, like a kernel, and keeps it on disk if Numba finds a directory for it."""
    function.__qualname__ += f".{_sources():08x}"
    try:
        return _compiled(function, exact=exact, cache=True)
    except RuntimeError:
        return _compiled(function, exact=exact)


def kernel(function: F, *, exact: bool = False) -> F:
    """Compiles a function that entries call. Unless it is `exact`, sums may be computed in any order, and no number may
    be nan.

    Each caller gets a copy of it, compiled together with the caller. Otherwise a function that was just compiled would
    sum in another order than the same function read from disk, and two workers would give different answers.
    """
    return _compiled(function, exact=exact, forceinline=not exact)


def inline(function: F) -> F:
    """Compiles a function as a part of the kernels that call it."""
    return _compiled(function, inline="always")


def _compiled(function: F, *, exact: bool = False, **options: Any) -> F:
    _prefer_wide_vectors()
    compiled: F = numba.njit(function, nogil=True, fastmath=not exact, error_model="numpy", **options)
    return compiled


def generated(result: types.Type, *kinds: types.Type | None) -> Callable[[Callable[..., Any]], Any]:
    """Decorates a function that generates LLVM code, (builder, *values) -> value, so that kernels can call it.

    `kinds` are the types of its arguments. None stands for a literal in the kernel's source, which is passed as an int.
    """

    def decorate(generate: Callable[..., Any]) -> Any:
        def typed(_context: Any, *arguments: Any) -> Any:
            def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                given = [
                    value if kind else argument.literal_value
                    for kind, argument, value in zip(kinds, signature.args, values, strict=True)
                ]
                found = generate(builder, *given)
                return context.get_dummy_value() if found is None else found

            return result(*(kind or argument for kind, argument in zip(kinds, arguments, strict=True))), lower

        names = ["_context", *(f"a{i}" for i in range(len(kinds)))]
        positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
        typed.__signature__ = inspect.Signature([inspect.Parameter(name, positional) for name in names])  # type: ignore[attr-defined]
        return intrinsic(prefer_literal=True)(typed)

    return decorate


def llvm_function(builder: Any, name: str, result: ir.Type, arguments: Sequence[ir.Type]) -> Any:
    """An LLVM intrinsic (https://llvm.org/docs/LangRef.html#intrinsic-functions), for generated code to call."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def splat(builder: Any, value: Any, kind: ir.VectorType) -> Any:
    """A vector whose elements are all the value."""
    one = builder.insert_element(kind(ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.VectorType(ir.IntType(32), kind.count)(None))


def has(feature: str) -> bool:
    """Whether the processor for which Numba compiles has a feature, by LLVM's name."""
    _prefer_wide_vectors()
    return f"+{feature}" in numba.config.CPU_FEATURES.split(",")


@cache
def _prefer_wide_vectors() -> None:
    """Makes LLVM use vectors of 512 bits if the processor has them. By default it uses 256, because the processor may
    lower its clock for wider ones; here that costs a tenth of the speed.

    This applies to all that Numba compiles in this process, unless NUMBA_CPU_FEATURES is set.
    """
    if numba.config.CPU_FEATURES is None:
        numba.config.CPU_FEATURES = f"{llvm.get_host_cpu_features().flatten()},-prefer-256-bit"


@cache
def _sources() -> int:
    return zlib.crc32(b"".join((_MODELS / name).read_bytes() for name in _SOURCES))
