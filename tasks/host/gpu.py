"""The NVIDIA GPUs that a worker may use, and the pinning of a worker to one of them.

NVML lists the GPUs without CUDA. CUDA and torch must not be loaded yet: they read CUDA_VISIBLE_DEVICES only once.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a part of one (MIG): `index` as in nvidia-smi, `memory` in bytes."""

    index: int
    uuid: str
    name: str
    memory: int

    @property
    def nickname(self) -> str:
        """A name that is unique on this host. Parts of a GPU (MIG) are named by UUID: their index is not unique."""
        return f"gpu{self.index}" if self.uuid.startswith("GPU-") else self.uuid.lower()[:12]


def visible() -> list[Gpu]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES in its order, or all if it is not set.

    The variable lists indexes, UUIDs, or beginnings of UUIDs. As in CUDA, the first item that names no device ends the
    list (https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html).
    Without an NVIDIA driver the result is empty. Raises click.UsageError if the driver does not answer.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return []
    except pynvml.NVMLError as error:
        raise click.UsageError(
            f"The NVIDIA driver does not answer ({error}). Repair the driver, or use --gpu none."
        ) from None
    try:
        present = [_look(pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(pynvml.nvmlDeviceGetCount())]
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        if named is None:
            return present
        found = []
        for entry in named.split(","):
            if (gpu := _find(entry.strip(), present)) is None:
                break
            found.append(gpu)
        return found
    finally:
        pynvml.nvmlShutdown()


def memory_of(gpu: Gpu) -> tuple[int, int]:
    """The bytes of a GPU's memory that are in use by any process, and all its bytes. Raises pynvml.NVMLError."""
    import pynvml

    pynvml.nvmlInit()
    try:
        found = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid))
        return found.used, found.total
    finally:
        pynvml.nvmlShutdown()


def _look(handle: Any) -> Gpu:
    import pynvml

    return Gpu(
        index=pynvml.nvmlDeviceGetIndex(handle),
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        memory=pynvml.nvmlDeviceGetMemoryInfo(handle).total,
    )


def _find(entry: str, present: list[Gpu]) -> Gpu | None:
    import pynvml

    if entry.startswith("MIG-"):  # a part of a GPU: `present` has only whole GPUs
        try:
            return _look(pynvml.nvmlDeviceGetHandleByUUID(entry))
        except pynvml.NVMLError:
            return None
    if entry.startswith("GPU-"):
        meant = [gpu for gpu in present if gpu.uuid.startswith(entry)]
        return meant[0] if len(meant) == 1 else None
    return present[int(entry)] if entry.isdecimal() and int(entry) < len(present) else None


def choose(wanted: str) -> Gpu | None:
    """The visible GPU whose number is `wanted`; the first one, if any, for an empty string. None means the CPU.

    `none` chooses the CPU. Raises click.UsageError, which lists the GPUs, if there is no such GPU.
    """
    if wanted == "none":
        return None
    gpus = visible()
    if not wanted:
        return gpus[0] if gpus else None
    if not gpus:
        raise click.UsageError(f"GPU {wanted} does not exist. {inventory(gpus)} Use --gpu none.")
    return pick(gpus, wanted)


def pick(gpus: list[Gpu], number: str) -> Gpu:
    """The GPU at place `number` of `gpus`. Raises click.UsageError, which lists the GPUs, if there is none."""
    if number.isdecimal() and int(number) < len(gpus):
        return gpus[int(number)]
    raise click.UsageError(f"GPU {number} does not exist. {inventory(gpus)}")


def inventory(gpus: list[Gpu]) -> str:
    """A sentence that lists `gpus`, for error messages."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    whose = "This host has" if named is None else f"CUDA_VISIBLE_DEVICES={named} leaves"
    there = [f"{place} ({gpu.name}, {gpu.memory / 2**30:.0f} GiB)" for place, gpu in enumerate(gpus)]
    return f"{whose}: {', '.join(there)}." if there else f"{whose} no GPU."


def pin(gpu: Gpu | None) -> str:
    """Hides all other GPUs from this process; all GPUs if `gpu` is None. Returns torch's name of the device.

    Raises RuntimeError if torch was imported before: it may have read CUDA_VISIBLE_DEVICES already.
    """
    if "torch" in sys.modules:
        raise RuntimeError("torch was imported before the worker was pinned to a device.")
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu.uuid if gpu else ""
    return "cuda:0" if gpu else "cpu"
