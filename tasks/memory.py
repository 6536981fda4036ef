"""How much memory this process holds."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


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
