"""Runs work at a lower priority than the threads that translate."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from queue import SimpleQueue
from typing import Any, TypeVar

NICENESS = 10  # a thread gets about a tenth of the processor's time that a thread of niceness 0 gets

T = TypeVar("T")


def lower_priority() -> None:
    """Lowers the priority of this thread, and of the threads that it starts, for good: raising it again would take
    privileges. Does nothing except on Linux, where each thread has a priority of its own (nice(2))."""
    if sys.platform == "linux":
        os.nice(NICENESS)


def in_background(work: Callable[[], T]) -> T:
    """Calls `work` in a thread of lower priority; returns its result or raises its exception. The priority of the
    caller, and of threads that the caller starts, stays. The end of the process does not wait for the work.

    One thread does all work, one after the other. Because each thread has a heap of its own (malloc(3), arenas), the
    memory that is left over from loading one model is used for the next.
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
    except BaseException as error:  # noqa: BLE001 - the waiting caller gets it
        outcome.set_exception(error)
        del outcome  # otherwise the error's traceback and the future would refer to each other, and stay in memory
