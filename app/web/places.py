"""Limits how many requests a view serves at the same time, so that threads are left for other views."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from tasks.contract.errors import Code, TolkError


def bounded(view: Callable[..., Any], places: threading.BoundedSemaphore) -> Callable[..., Any]:
    """The view, limited to as many requests at a time as there are places. It raises TolkError(OVERLOADED) for more."""

    @wraps(view)
    def answer() -> Any:
        if not places.acquire(blocking=False):
            raise TolkError(Code.OVERLOADED, "Too many requests are being served already. Try again in a second.", 1.0)
        try:
            return view()
        finally:
            places.release()

    return answer
