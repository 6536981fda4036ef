"""The memory that this process holds, the memory that it may have, and the part of it that is for models."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
PROCESS_CGROUPS = Path("/proc/self/cgroup")


def resident() -> int:
    """Resident bytes of this process; on a system without /proc, the most that it has had so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()


def on_gpu() -> int | None:
    """Bytes of the GPU's memory that torch holds, including its cache; None if the process uses no GPU."""
    if "torch" not in sys.modules:
        return None
    import torch  # if another thread is importing it, this waits until that import is complete

    return torch.cuda.memory_reserved() if torch.cuda.is_available() else None


def for_models(siblings: int) -> int:
    """Bytes that models may take if TOLK_MEMORY is unset.

    On a GPU, 0.7 of its free memory. On the CPU, half of the available memory, divided by `siblings`: the number of
    workers of the pool, this one included.
    """
    if on_gpu() is not None:
        import torch

        return int(0.7 * torch.cuda.mem_get_info()[0])
    return share(available(), siblings)


def share(available: int, siblings: int) -> int:
    """Bytes for the models of each of `siblings` workers: an equal part of half of the `available` bytes."""
    return available // 2 // siblings


def available(groups: Path = PROCESS_CGROUPS, mounted: Path = CGROUPS) -> int:
    """Bytes that this process can have without swapping: MemAvailable of proc(5), or `limit` if that is less."""
    found = [limit(groups, mounted)]
    with suppress(OSError):  # a system without /proc
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
        found += [1024 * int(value) for value in re.findall(r"MemAvailable: +(\d+) kB", meminfo)]
    return min(found)


def limit(groups: Path = PROCESS_CGROUPS, mounted: Path = CGROUPS) -> int:
    """Bytes that this process may have: all of the machine's, or less if a control group that it is in limits them.

    `groups` is the file that lists the process's control groups, `mounted` the directory of the cgroup file system.
    """
    found = [os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()]
    for path in _limits(groups, mounted):
        with suppress(OSError, ValueError):  # no such file, as for a path outside of a container; or the word "max"
            found.append(int(path.read_text(encoding="ascii")))
    return min(found)


def _limits(groups: Path, mounted: Path) -> Iterator[Path]:
    """The files that may hold a limit: memory.max of control groups v2, memory.limit_in_bytes of v1.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
    """
    with suppress(OSError):
        for line in groups.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            group = PurePosixPath(path.lstrip("/"))
            for each in (group, *group.parents):
                if not controllers:
                    yield mounted / each / "memory.max"
                elif "memory" in controllers.split(","):
                    yield mounted / "memory" / each / "memory.limit_in_bytes"
