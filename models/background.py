"""Work that has time: threads that translate go before it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

NICENESS = 10  # gives a tenth of the processor's time where others want it, too

T = TypeVar("T")


def lower_priority() -> None:
    """Of this thread, and of those that it starts, for good: raising it again takes privileges. Of all systems, Linux
    alone has a priority for each thread (nice(2))."""
    if sys.platform == "linux":
        os.nice(NICENESS)


def in_background(work: Callable[[], T]) -> T:
    """Does it in a thread of a lower priority, and returns or raises what it does. So whoever calls this can start
    threads which are not behind others.

    It is always the same thread, one work after the other: each thread has a heap of its own (malloc(3), arenas), and
    what loading a model leaves behind there, the next one takes.
    """
    return _thread().submit(work).result()


@cache
def _thread() -> ThreadPoolExecutor:
    os.register_at_fork(after_in_child=_thread.cache_clear)
    return ThreadPoolExecutor(1, "background", initializer=lower_priority)
