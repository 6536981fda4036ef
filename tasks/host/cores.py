"""The cores that a process may use, and their division among several workers."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from itertools import pairwise

from celery.utils.sysinfo import cpu_budget  # type: ignore[attr-defined]  # missing in celery-types


def usable_cores() -> list[int]:
    """The numbers of the cores that this process is bound to; as many of them as its control group's quota allows."""
    return some(os.sched_getaffinity(0), cpu_budget().count)


def some(cores: Set[int], count: int) -> list[int]:
    """At most `count` of `cores`, sorted; chosen at random, so that containers do not all use a host's first cores."""
    return sorted(cores if count >= len(cores) else random.sample(sorted(cores), count))


def divide(cores: Sequence[int], count: int) -> list[set[int]]:
    """Divides `cores` among `count` workers: about as many adjacent cores for each worker.

    If there are fewer cores than workers, each worker has one core, which it shares with others.
    """
    if count >= len(cores):
        return [{cores[place % len(cores)]} for place in range(count)]
    bounds = [place * len(cores) // count for place in range(count + 1)]
    return [set(cores[start:end]) for start, end in pairwise(bounds)]


@contextmanager
def bound_to(cores: set[int] | None) -> Iterator[None]:
    """Inside of the `with`, this thread and the processes that it starts may use only `cores`; None changes nothing."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
