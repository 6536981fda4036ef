"""Chooses the precision in which a model computes, and loads the model in it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast, get_args

import torch

from models.errors import BadInput, Unavailable
from models.network.interface import Network
from models.network.marian import Marian

Precision = Literal["float32", "bfloat16", "float16", "int8"]


def load(directory: Path, *, device: str = "cpu", precision: str = "auto") -> Network:
    """The model of a MarianMT directory. `precision` is one of Precision, or auto: the fastest on this device.

    Every precision loses less than 0.1 BLEU (docs/performance.md). Raises UnknownModel as Marian.load does, BadInput
    for a precision that is unknown or that the device does not support, Unavailable for a device that does not exist or
    has too little memory.
    """
    precision = choose(precision, device)
    try:
        if precision != "int8":
            return Marian.load(directory, device=device, dtype=getattr(torch, precision))
        from models.network.int8 import Int8Marian  # imports Numba, which only int8 needs

        return Int8Marian(Marian.load(directory))
    except (AssertionError, MemoryError, OSError, RuntimeError) as error:  # no such device, or too little memory
        raise Unavailable(
            f"The model cannot be put on device {device!r}: {str(error) or 'no memory is left'}"
        ) from error


def choose(precision: str, device: str) -> Precision:
    """The precision that `load` uses. Raises BadInput as `load` does."""
    on_cpu = device.partition(":")[0] == "cpu"
    possible = get_args(Precision) if on_cpu else ("float32", "bfloat16", "float16")
    if precision == "auto":
        precision = _fastest() if on_cpu else "float16"
    if precision not in possible or (on_cpu and precision == "float16"):
        raise BadInput(f"precision: {precision!r} is not one of auto, {', '.join(possible)}, or not for {device}.")
    return cast("Precision", precision)


def _fastest() -> Precision:
    """The fastest precision on this CPU, chosen by the CPU's instructions. Nothing is measured, so all workers on a
    host choose the same."""
    from models.compiled.gemm import is_fast

    if is_fast():
        return "int8"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
