"""How large an engine is: its lanes, their batches, and its queue."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`token_budget`: source tokens x hypotheses in a lane's batch. `max_waiting`: sentences in the queue, at most.
    `lanes`: threads that decode, by default one for each core on a CPU, and one on a GPU. `rest_after`: seconds without
    work after which a lane gives back what a large batch took. `last_step`: seconds that closing waits for the end of a
    step that is under way.
    """

    token_budget: int = 3072
    max_waiting: int = 50_000
    lanes: int | None = None
    rest_after: float = 1.0
    last_step: float = 5.0

    def lanes_on(self, device: torch.device) -> int:
        return self.lanes or (cores() if device.type == "cpu" else 1)


def cores() -> int:
    """How many cores this process may use: those it is bound to, and no more than its control group's quota.

    The quota is that of control groups v2 (https://docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max): microseconds
    of processor time in a period of so many.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or "max" for no quota
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(bound, int(quota) // int(period)))
    return bound
