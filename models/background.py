"""Work that has time: threads that translate go before it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

NICENESS = 10  # gives a tenth of the processor's time where others want it, too

T = TypeVar("T")


def lower_priority() -> None:
    """Of this thread, and of those that it starts, for good: raising it again takes privileges. Of all systems, Linux
    alone has a priority for each thread (nice(2))."""
    if sys.platform == "linux":
        os.nice(NICENESS)


def in_background(work: Callable[[], T]) -> T:
    """Does it in a thread of its own and of a lower priority; returns or raises what it does. So whoever calls this can
    start threads afterwards which are not behind others."""
    with ThreadPoolExecutor(1, "background", initializer=lower_priority) as pool:
        return pool.submit(work).result()
