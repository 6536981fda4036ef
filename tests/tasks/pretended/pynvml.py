"""A pretended NVML of a host with three GPUs. A handle is (index, UUID, name, GiB)."""
# ruff: noqa: N801, N802 - NVML's names

from __future__ import annotations

from types import SimpleNamespace

GPUS = [(0, "GPU-0a", "NVIDIA A100", 80), (1, "GPU-1b", "NVIDIA L4", 24), (2, "GPU-1c", "NVIDIA L4", 24)]
PART = (5, "MIG-77aa88bb99", "NVIDIA A100 MIG 1g.10gb", 10)

Handle = tuple[int, str, str, int]


class NVMLError(Exception): ...


class NVMLError_LibraryNotFound(NVMLError): ...


class NVMLError_DriverNotLoaded(NVMLError): ...


def nvmlInit() -> None: ...


def nvmlShutdown() -> None: ...


def nvmlDeviceGetCount() -> int:
    return len(GPUS)


def nvmlDeviceGetHandleByIndex(index: int) -> Handle:
    return GPUS[index]


def nvmlDeviceGetHandleByUUID(uuid: str) -> Handle:
    for handle in (*GPUS, PART):
        if handle[1] == uuid:
            return handle
    raise NVMLError("Not Found")


def nvmlDeviceGetIndex(handle: Handle) -> int:
    return handle[0]


def nvmlDeviceGetUUID(handle: Handle) -> str:
    return handle[1]


def nvmlDeviceGetName(handle: Handle) -> str:
    return handle[2]


def nvmlDeviceGetMemoryInfo(handle: Handle) -> SimpleNamespace:
    return SimpleNamespace(used=(handle[0] + 1) * 2**20, total=handle[3] * 2**30)
