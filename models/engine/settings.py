"""The size of an engine: its lanes, their batches, and its queue."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`token_budget`: the most source tokens x hypotheses in a lane's batch. `max_waiting`: the most sentences in the
    queue. `lanes`: number of threads that decode, by default one for each core on a CPU, and one on a GPU.
    `rest_after`: seconds without work after which a lane gives back the memory of a large batch. `last_step`: seconds
    that closing waits for the end of a running step.
    """

    token_budget: int = 3072
    max_waiting: int = 50_000
    lanes: int | None = None
    rest_after: float = 1.0
    last_step: float = 5.0

    def lanes_on(self, device: torch.device) -> int:
        """The number of lanes of an engine on this device."""
        return self.lanes or (cores() if device.type == "cpu" else 1)

    def caller_share_on(self, device: torch.device) -> float:
        """The largest part of a lane's batch for one caller while others are present. Larger batches cost a CPU as much
        as smaller ones, for each sentence, so that they only make steps longer; a GPU computes more of them at once."""
        return 0.125 if device.type == "cpu" else 0.5

    def portion_on(self, device: torch.device) -> int:
        """The tokens of the bulk sentences that are encoded at once, or take a step beside interactive ones. A core
        computes more of them in proportion longer; a GPU computes many as fast as a few."""
        return 64 if device.type == "cpu" else 1024


def cores() -> int:
    """How many cores this process may use: the cores it is bound to, but no more than the quota of its control group.

    The quota is cpu.max of control groups v2 (https://docs.kernel.org/admin-guide/cgroup-v2.html): microseconds of
    processor time, and the microseconds of the period in which they may be used.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # there is no such file, or it says "max": no quota
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(bound, int(quota) // int(period)))
    return bound
