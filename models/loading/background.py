"""Work that can wait: threads that translate have a higher priority."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from queue import SimpleQueue
from typing import Any, TypeVar

NICENESS = 10  # gives a tenth of the processor's time where others want it, too

T = TypeVar("T")


def lower_priority() -> None:
    """Lowers the priority of this thread, and of those that it starts, for good: raising it again takes privileges.
    Only on Linux, where each thread has a priority of its own (nice(2))."""
    if sys.platform == "linux":
        os.nice(NICENESS)


def in_background(work: Callable[[], T]) -> T:
    """Does the work in a thread of a lower priority, and returns or raises what it does. The caller keeps its own
    priority, and so do threads that the caller starts. The end of the process does not wait for the work.

    All work is done by the same thread, one after the other: each thread has a heap of its own (malloc(3), arenas), so
    the memory that loading one model leaves behind is taken by the next.
    """
    return _begin(work).result()


def _begin(work: Callable[[], T]) -> Future[T]:
    outcome: Future[T] = Future()
    _works().put((work, outcome))
    return outcome


@cache
def _works() -> SimpleQueue[Any]:
    works: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_do_all, args=(works,), name="background", daemon=True).start()
    os.register_at_fork(after_in_child=_works.cache_clear)
    return works


def _do_all(works: SimpleQueue[Any]) -> None:
    lower_priority()
    while True:
        _do(*works.get())


def _do(work: Callable[[], T], outcome: Future[T]) -> None:
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001 - for whoever waits for it
        outcome.set_exception(error)
        del outcome  # or they would hold each other, and what was half made
