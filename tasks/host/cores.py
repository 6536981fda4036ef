"""The cores that a process may use, and how several share them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from itertools import pairwise

from celery.utils.sysinfo import cpu_budget  # type: ignore[attr-defined]  # missing in celery-types


def usable_cores() -> list[int]:
    """Those that this process is bound to, or as many of them as the quota of its control group allows."""
    return some(os.sched_getaffinity(0), cpu_budget().count)


def some(cores: Set[int], count: int) -> list[int]:
    """So many of these at most: by chance, lest all the containers of a host crowd on its first ones."""
    return sorted(cores if count >= len(cores) else random.sample(sorted(cores), count))


def divide(cores: Sequence[int], count: int) -> list[set[int]]:
    """The cores of each of so many workers: neighbours, about as many for each; one that is shared where they lack."""
    if count >= len(cores):
        return [{cores[place % len(cores)]} for place in range(count)]
    bounds = [place * len(cores) // count for place in range(count + 1)]
    return [set(cores[start:end]) for start, end in pairwise(bounds)]


@contextmanager
def bound_to(cores: set[int] | None) -> Iterator[None]:
    """A process that is started meanwhile may use these cores: it has them from the thread that starts it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
