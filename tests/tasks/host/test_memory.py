"""The limits of memory, and the share of it that is for models."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.host import memory


def test_half_of_what_is_available_is_for_models_and_divided_in_a_pool() -> None:
    assert memory.share(8_000_000_000, 1) == 4_000_000_000
    assert memory.share(8_000_000_000, 4) == 1_000_000_000


@pytest.fixture
def cgroups(tmp_path: Path) -> Callable[[str, str, str], tuple[Path, Path]]:
    """Pretends that a process is in a control group with a limit in a file; returns the paths that `limit` reads."""

    def put(line: str, file: str, limit: str) -> tuple[Path, Path]:
        (tmp_path / "self").write_text(f"12:cpu,cpuacct:/elsewhere\n{line}\n")
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"{limit}\n")
        return tmp_path / "self", tmp_path

    return put


MACHINE = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()


def test_without_a_control_group_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert memory.limit(tmp_path / "none") == MACHINE
    assert 4096 < memory.available(tmp_path / "none") <= MACHINE


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/", "memory.max"),
        ("0::/system.slice/tolk.service", "system.slice/tolk.service/memory.max"),
        ("0::/system.slice/tolk.service", "system.slice/memory.max"),
        ("0::/../outside", "memory.max"),
        ("4:memory:/", "memory/memory.limit_in_bytes"),
        ("4:hugetlb,memory:/docker/1f", "memory/docker/1f/memory.limit_in_bytes"),
        ("4:memory:/docker/1f", "memory/memory.limit_in_bytes"),  # in the container, which does not have that path
    ],
)
def test_a_control_group_limits_and_so_does_one_around_it(
    cgroups: Callable[[str, str, str], tuple[Path, Path]], line: str, file: str
) -> None:
    assert memory.limit(*cgroups(line, file, "max")) == MACHINE
    assert memory.limit(*cgroups(line, file, str(2**63 - 4096))) == MACHINE  # control groups v1: no limit
    said = cgroups(line, file, "4096")
    assert memory.limit(*said) == memory.available(*said) == 4096


def test_the_lowest_limit_counts(cgroups: Callable[[str, str, str], tuple[Path, Path]]) -> None:
    cgroups("0::/outer/inner", "outer/inner/memory.max", "8192")
    assert memory.limit(*cgroups("0::/outer/inner", "outer/memory.max", "4096")) == 4096


def test_another_controllers_limit_is_not_memorys(cgroups: Callable[[str, str, str], tuple[Path, Path]]) -> None:
    assert memory.limit(*cgroups("4:pids:/", "memory/memory.limit_in_bytes", "4096")) == MACHINE
