"""Models that could not be loaded lately, and are not tried again for a while."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import NamedTuple

from models.errors import ModelError

FORGET = 2.0  # seconds that a failed load is remembered, twice as long after each further one
FORGET_AT_MOST = 60.0


class _Reason(NamedTuple):
    """Why a model could not be loaded, and until when nobody tries again: so many seconds after it happened."""

    error: ModelError
    until: float
    seconds: float


class FailedLoads:
    """By name of a model. Plain Python, without a lock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reasons: dict[str, _Reason] = {}

    def add(self, name: str, error: ModelError) -> None:
        before = self._reasons.get(name)
        seconds = FORGET if before is None else min(2 * before.seconds, FORGET_AT_MOST)
        self._reasons[name] = _Reason(error, self._clock() + seconds, seconds)

    def forget(self, name: str) -> None:
        self._reasons.pop(name, None)

    def check(self, name: str) -> None:
        """Raises why this model could not be loaded, while that is remembered: a copy, since a thread that raises an
        error writes its traceback onto it."""
        if (reason := self._reasons.get(name)) is not None and self._clock() < reason.until:
            raise copy(reason.error)
