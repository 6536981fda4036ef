"""Remembers models whose loading has failed, so that they are not tried again for a while."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import NamedTuple

from models.errors import ModelError

FORGET = 2.0  # seconds that the first failure is remembered; each further one is remembered twice as long
FORGET_AT_MOST = 60.0


class _Reason(NamedTuple):
    """Why a model could not be loaded, and how long this is remembered: `seconds`, `until` a time of the clock."""

    error: ModelError
    until: float
    seconds: float


class FailedLoads:
    """The failures by name of the model. It has no lock of its own."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reasons: dict[str, _Reason] = {}

    def add(self, name: str, error: ModelError) -> None:
        """Remembers a failure, twice as long as the last one of the same model, if that has not been forgotten."""
        before = self._reasons.get(name)
        seconds = FORGET if before is None else min(2 * before.seconds, FORGET_AT_MOST)
        self._reasons[name] = _Reason(error, self._clock() + seconds, seconds)

    def forget(self, name: str) -> None:
        """Forgets the failures of a model."""
        self._reasons.pop(name, None)

    def check(self, name: str) -> None:
        """Raises the error with which loading this model failed, if it is remembered. It raises a copy, because each
        thread that raises an error adds its traceback to it."""
        if (reason := self._reasons.get(name)) is not None and self._clock() < reason.until:
            raise copy(reason.error)
