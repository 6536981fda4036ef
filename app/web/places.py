"""How many requests are served at once: what finds no place is refused at once, so that threads are left for others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from tasks.contract.errors import Code, TolkError


def bounded(view: Callable[..., Any], places: threading.BoundedSemaphore) -> Callable[..., Any]:
    """The view, for as many requests at once as there are places. Raises TolkError(OVERLOADED) for one more."""

    @wraps(view)
    def answer() -> Any:
        if not places.acquire(blocking=False):
            raise TolkError(Code.OVERLOADED, "Too many requests are being served already. Try again in a second.", 1.0)
        try:
            return view()
        finally:
            places.release()

    return answer
