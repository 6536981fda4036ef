"""Lists of GPUs, and the pinning of a worker to a GPU before torch is imported. NVML's list is pretended.

In the directory `pretended` is a module `pynvml` that comes before the real one on a process's path, and one that says
what the environment is when the import of torch begins. All else is real, torch included.
"""

from __future__ import annotations

import os
import socket
import sys
from types import ModuleType
from unittest.mock import Mock

import click
import pynvml
import pytest

from tasks.host import gpu
from tasks.host.gpu import Gpu


def test_the_pretence_has_only_what_nvml_has(nvml: ModuleType) -> None:
    names = {name for name in vars(nvml) if name.lower().startswith("nvml")}
    assert len(names) > 9
    assert names <= vars(pynvml).keys()


@pytest.mark.parametrize(
    ("named", "uuids"),
    [
        (None, ["GPU-0a", "GPU-1b", "GPU-1c"]),
        ("2, 0", ["GPU-1c", "GPU-0a"]),
        ("GPU-1b,GPU-0", ["GPU-1b", "GPU-0a"]),
        ("MIG-77aa88bb99,1", ["MIG-77aa88bb99", "GPU-1b"]),
        ("1,GPU-1,0", ["GPU-1b"]),  # two UUIDs begin with GPU-1
        ("1,-1,0", ["GPU-1b"]),
        ("0,3,1", ["GPU-0a"]),
        ("0,MIG-0,1", ["GPU-0a"]),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(
    nvml: ModuleType, monkeypatch: pytest.MonkeyPatch, named: str | None, uuids: list[str]
) -> None:
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [found.uuid for found in gpu.visible()] == uuids


def test_gpus_are_called_after_their_place_in_the_host_and_their_parts_after_their_uuid(
    nvml: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,MIG-77aa88bb99")
    assert [found.nickname for found in gpu.visible()] == ["gpu2", "mig-77aa88bb"]


def test_one_is_chosen_by_its_number_among_the_visible(nvml: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = gpu.visible()
    assert second == Gpu(1, "GPU-1b", "NVIDIA L4", 24 * 2**30)
    assert [gpu.choose(wanted) for wanted in ("1", "", "none")] == [second, first, None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    assert gpu.choose("0") == third
    for wanted in ("2", "-1", "x"):
        with pytest.raises(click.UsageError) as caught:
            gpu.choose(wanted)
        there = "0 (NVIDIA L4, 24 GiB), 1 (NVIDIA A100, 80 GiB)"
        assert caught.value.message == f"GPU {wanted} does not exist. CUDA_VISIBLE_DEVICES=2,0 leaves: {there}."


def test_memory_is_that_of_the_one_that_was_chosen(nvml: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-77aa88bb99,1")
    assert [gpu.memory_of(found) for found in gpu.visible()] == [(6 * 2**20, 10 * 2**30), (2 * 2**20, 24 * 2**30)]


@pytest.mark.parametrize("error", ["LibraryNotFound", "DriverNotLoaded"])
def test_without_a_driver_there_is_no_gpu(nvml: ModuleType, monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    monkeypatch.setattr(nvml, "nvmlInit", Mock(side_effect=getattr(nvml, f"NVMLError_{error}")))
    assert gpu.choose("") is None
    with pytest.raises(click.UsageError, match=r"GPU 0 does not exist. This host has no GPU. Use --gpu none."):
        gpu.choose("0")


def test_a_driver_that_is_there_and_does_not_answer_is_no_reason_to_take_the_cpu(
    nvml: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "nvmlInit", Mock(side_effect=nvml.NVMLError("Driver/library version mismatch")))
    with pytest.raises(click.UsageError, match="version mismatch"):
        gpu.choose("")


def test_none_hides_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert gpu.pin(None) == "cpu"
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"]) == ("", "PCI_BUS_ID")


def test_it_is_too_late_to_pin_once_torch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    with pytest.raises(RuntimeError, match="torch was imported before"):
        gpu.pin(None)


def test_a_worker_is_pinned_before_torch_is_imported(spawn, pretended: dict[str, str]) -> None:
    host = socket.gethostname()
    started = []
    for arguments, environ, uuid, name in (
        (["--gpu", "1"], {"CUDA_VISIBLE_DEVICES": "0,GPU-1c"}, "GPU-1c", "gpu2"),
        ([], {"TOLK_GPU": "1"}, "GPU-1b", "gpu1"),
        (["-n", "mine@%h"], {}, "GPU-0a", "mine"),
    ):
        worker = spawn("celery", "-A", "tasks", "worker", *arguments, **pretended, **environ)
        seen = f"torch would see {uuid} PCI_BUS_ID"
        # torch finds out that there is no such GPU.
        started.append((worker, (f"{name}@{host}", seen, "cannot be used on cuda:0")))
    for worker, sentences in started:
        assert worker.process.wait(60) == 1
        assert [sentence for sentence in sentences if not worker.says(sentence)] == []


def test_a_gpu_that_does_not_exist_is_refused_with_what_exists(spawn, pretended: dict[str, str]) -> None:
    worker = spawn("celery", "-A", "tasks", "worker", "--gpu", "3", **pretended)
    assert worker.process.wait(60) == 2
    assert worker.says("Error: GPU 3 does not exist. This host has: 0 (NVIDIA A100, 80 GiB), 1 (NVIDIA L4, 24 GiB), 2")
    assert not worker.says("torch would see")
