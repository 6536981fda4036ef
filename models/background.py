"""Work that has time: threads that translate go before it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
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
    start threads afterwards which are not behind others. The end of the process does not wait for it."""
    return _begin(work).result()


def _begin(work: Callable[[], T]) -> Future[T]:
    outcome: Future[T] = Future()
    threading.Thread(target=_do, args=(work, outcome), name="background", daemon=True).start()
    return outcome


def _do(work: Callable[[], T], outcome: Future[T]) -> None:
    lower_priority()
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001 - for whoever waits for it
        outcome.set_exception(error)
        del outcome  # or they would hold each other, and what was half made
