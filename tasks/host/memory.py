"""How much memory this process holds, and how much of it is for models."""

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
    """Bytes of it in the machine's memory; where there is no /proc, the most that it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()


def on_gpu() -> int | None:
    """Bytes that torch holds of the GPU, those for further use included; None where it uses none."""
    if "torch" not in sys.modules:
        return None
    import torch  # waits where another thread is at it

    return torch.cuda.memory_reserved() if torch.cuda.is_available() else None


def for_models(siblings: int) -> int:
    """Bytes that models may take unless TOLK_MEMORY says it: of a GPU 0.7 of what is free, of a machine half of what is
    available to this process and to its siblings in a pool, divided among them."""
    if on_gpu() is not None:
        import torch

        return int(0.7 * torch.cuda.mem_get_info()[0])
    return share(available(), siblings)


def share(available: int, siblings: int) -> int:
    """Bytes that each may take of what is available to all."""
    return available // 2 // siblings


def available(groups: Path = PROCESS_CGROUPS, mounted: Path = CGROUPS) -> int:
    """Bytes of the machine's memory that can be had without swapping, MemAvailable of proc(5), and at most `limit`."""
    found = [limit(groups, mounted)]
    with suppress(OSError):  # another system
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
        found += [1024 * int(value) for value in re.findall(r"MemAvailable: +(\d+) kB", meminfo)]
    return min(found)


def limit(groups: Path = PROCESS_CGROUPS, mounted: Path = CGROUPS) -> int:
    """Bytes that this process may have: the machine's, or less where its control group or one around that says so.

    `groups` is the file that names its control groups, `mounted` where their file system is.
    """
    found = [os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()]
    for path in _limits(groups, mounted):
        with suppress(OSError, ValueError):  # no such file, as in a container the path outside of it; or "max"
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
