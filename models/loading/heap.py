"""The C library's heap."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def trim() -> None:
    """Returns freed memory to the operating system with malloc_trim(3), if the C library is glibc.

    By itself glibc keeps freed memory that lies between memory in use. While this runs, threads that allocate memory
    may have to wait for some milliseconds.
    """
    if (malloc_trim := _malloc_trim()) is not None:
        malloc_trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
