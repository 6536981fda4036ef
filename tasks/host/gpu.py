"""The NVIDIA GPUs that a worker may use, and how it is pinned to one of them.

NVML tells of them without CUDA, and so without torch, which looks at CUDA_VISIBLE_DEVICES once.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Gpu:
    """`index` is that of nvidia-smi, `memory` in bytes."""

    index: int
    uuid: str
    name: str
    memory: int

    @property
    def nickname(self) -> str:
        """What no other GPU of this host is called; the indexes of parts (MIG) count within their GPU."""
        return f"gpu{self.index}" if self.uuid.startswith("GPU-") else self.uuid.lower()[:12]


def visible() -> list[Gpu]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, in its order, where it is set, else all.

    It holds indexes or UUIDs, or how these begin, and ends where one is no device's: so CUDA reads it
    (https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html).
    Without a driver there are none. Raises click.UsageError where the driver does not answer.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return []
    except pynvml.NVMLError as error:
        raise click.UsageError(f"The NVIDIA driver does not answer ({error}): use --gpu none, or repair it.") from None
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
    """Bytes of a GPU that are in use, whoever uses them, and all of them. Raises pynvml.NVMLError."""
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

    if entry.startswith("MIG-"):  # a part of a GPU, which is not among those present
        try:
            return _look(pynvml.nvmlDeviceGetHandleByUUID(entry))
        except pynvml.NVMLError:
            return None
    if entry.startswith("GPU-"):
        meant = [gpu for gpu in present if gpu.uuid.startswith(entry)]
        return meant[0] if len(meant) == 1 else None
    return present[int(entry)] if entry.isdecimal() and int(entry) < len(present) else None


def choose(wanted: str) -> Gpu | None:
    """The visible GPU of a number; None, which is the CPU, for `none`; for an empty word the first one, if any.

    Raises click.UsageError that says what there is.
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
    """One of these, by its place. Raises click.UsageError that says what there is."""
    if number.isdecimal() and int(number) < len(gpus):
        return gpus[int(number)]
    raise click.UsageError(f"GPU {number} does not exist. {inventory(gpus)}")


def inventory(gpus: list[Gpu]) -> str:
    """What there is, in a sentence."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    whose = "This host has" if named is None else f"CUDA_VISIBLE_DEVICES={named} leaves"
    there = [f"{place} ({gpu.name}, {gpu.memory / 2**30:.0f} GiB)" for place, gpu in enumerate(gpus)]
    return f"{whose}: {', '.join(there)}." if there else f"{whose} no GPU."


def pin(gpu: Gpu | None) -> str:
    """Hides every other GPU from this process, or all of them. Returns the device as torch calls it.

    Raises RuntimeError where torch is there already, and may have looked.
    """
    if "torch" in sys.modules:
        raise RuntimeError("torch was imported before the worker was pinned to a device.")
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu.uuid if gpu else ""
    return "cuda:0" if gpu else "cpu"
