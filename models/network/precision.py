"""Which precision a model is computed in, and the model in it."""

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

    All of them lose less than 0.1 BLEU (docs/performance.md). Raises UnknownModel as Marian.load does, BadInput for a
    precision that is unknown or that the device cannot compute in, Unavailable for a device that is not there or too
    small.
    """
    precision = choose(precision, device)
    try:
        if precision != "int8":
            return Marian.load(directory, device=device, dtype=getattr(torch, precision))
        from models.network.int8 import Int8Marian  # brings Numba, which nobody else needs

        return Int8Marian(Marian.load(directory))
    except (AssertionError, MemoryError, OSError, RuntimeError) as error:  # of a device that is not there or too small
        raise Unavailable(
            f"The model cannot be put on device {device!r}: {str(error) or 'no memory is left'}"
        ) from error


def choose(precision: str, device: str) -> Precision:
    """What `load` takes. Raises BadInput as it does."""
    on_cpu = device.partition(":")[0] == "cpu"
    possible = get_args(Precision) if on_cpu else ("float32", "bfloat16", "float16")
    if precision == "auto":
        precision = _fastest() if on_cpu else "float16"
    if precision not in possible or (on_cpu and precision == "float16"):
        raise BadInput(f"precision: {precision!r} is none of auto, {', '.join(possible)}, or not for {device}.")
    return cast("Precision", precision)


def _fastest() -> Precision:
    """Of those a CPU computes in, by its instructions and not by a clock: every worker on a host takes the same."""
    from models.compiled.gemm import is_fast

    if is_fast():
        return "int8"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
