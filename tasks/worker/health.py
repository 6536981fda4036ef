"""The health of a worker, which `/healthz` reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.worker.watchdog import Watchdog

# Seconds for which a worker counts as healthy without its broker. A broker needs some seconds to restart, and up to a
# minute if it recovers many messages. Meanwhile a worker tries to connect every second; a restart of the worker would
# only make it load its models again. After that time something else is wrong, such as the address or the network.
BROKER_PATIENCE = 90.0


@dataclass(slots=True)
class Health:
    """Checks whether a worker can do its work.

    The worker counts as healthy without its broker for `patience` seconds. `clock` is a monotonic clock in seconds.
    """

    worker: Any
    patience: float = BROKER_PATIENCE
    clock: Callable[[], float] = time.monotonic
    connected: float = -math.inf  # the last time at which the worker was seen connected

    def look(self) -> None:
        connection = getattr(self.worker.consumer, "connection", None)
        if connection is not None and connection.connected:
            self.connected = self.clock()

    def complaint(self) -> str | None:
        """A sentence that says what is wrong with the worker; None if it is healthy."""
        watchdog: Watchdog | None = getattr(self.worker, "watchdog", None)  # None while the worker starts
        if watchdog is not None and (reason := watchdog.complaint()) is not None:
            return f"{reason}."
        if (seconds := self.clock() - self.connected) == math.inf:
            return "The worker is starting: it has not reached its broker yet."
        return f"The worker has been without its broker for {seconds:.0f} s." if seconds > self.patience else None
