"""How long a download may take: one that comes too slowly, or that nobody waits for any more, is given up."""

from __future__ import annotations

import time
from collections.abc import Callable

from models.errors import Unavailable

PACE = 16 << 10  # the least bytes a second
WINDOW = 30.0  # seconds over which the pace is measured
LONGEST = 2 * 3600.0  # seconds that one model may take


class Allowance:
    """The allowance of one download, which begins now.

    `wanted` says whether somebody still waits for the model. A connection has to bring `pace` bytes a second, measured
    over `window` seconds; all of the download may take `longest` seconds.
    """

    def __init__(
        self,
        wanted: Callable[[], bool] = lambda: True,
        *,
        pace: float = PACE,
        window: float = WINDOW,
        longest: float = LONGEST,
    ) -> None:
        self.window = window
        self.pace = pace
        self._wanted = wanted
        self._longest = longest
        self._until = time.monotonic() + longest

    def check(self) -> None:
        """Raises Unavailable if the download has to be given up. What has come is kept for the next one."""
        if not self._wanted():
            raise Unavailable("The download was given up, because nobody waits for the model any more.")
        if time.monotonic() >= self._until:
            raise Unavailable(f"The download took longer than {self._longest:.0f} s. Try again later.")

    def is_over(self) -> bool:
        """Whether `check` would raise Unavailable."""
        try:
            self.check()
        except Unavailable:
            return True
        return False
