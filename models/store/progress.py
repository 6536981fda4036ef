"""Shows the progress of a download: a bar on a terminal, otherwise a line in the log every few seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

EVERY = 10.0  # seconds from one line to the next

logger = logging.getLogger(__name__)


class Progress:
    """The progress of a download of several files, `total` bytes together. `what` names it."""

    def __init__(self, what: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._total, self._there, self._clock = what, total, dict[str, int](), clock
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc=what, total=total, unit="B", unit_scale=True)

    def __enter__(self) -> Self:
        self._said = self._began = self._clock()
        logger.info("fetching %s, %.1f MB", self._what, self._total / 1e6)
        return self

    def report(self, name: str, there: int) -> None:
        """Reports that `there` bytes of the file `name` have been downloaded."""
        if self._bar is not None:
            self._bar.update(there - self._there.get(name, 0))
        self._there[name] = there
        if self._clock() >= self._said + EVERY:
            self._said = self._clock()
            logger.info("%s: %.1f of %.1f MB", self._what, self._megabytes, self._total / 1e6)

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None:
            taken = self._clock() - self._began
            logger.info("fetched %s, %.1f MB in %.1f s", self._what, self._megabytes, taken)

    @property
    def _megabytes(self) -> float:
        return sum(self._there.values()) / 1e6
