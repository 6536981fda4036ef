"""How much memory this process holds, and how much of it is for models."""

from __future__ import annotations

import os
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

CGROUP = "/sys/fs/cgroup/memory.max"


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
    return available() // 2 // siblings


def available() -> int:
    """Bytes of the machine's memory that can be had without swapping, and at most what the control group allows.

    That is MemAvailable of proc(5), and memory.max of control groups v2
    (https://docs.kernel.org/admin-guide/cgroup-v2.html).
    """
    found = [os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()]
    for path, number, unit in (("/proc/meminfo", r"MemAvailable: +(\d+) kB", 1024), (CGROUP, r"\d+", 1)):
        with suppress(OSError):  # another system, or no limit
            found += [unit * int(value) for value in re.findall(number, Path(path).read_text(encoding="ascii"))]
    return min(found)
