"""Whether a worker is well, as `/healthz` says."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.worker.watchdog import Watchdog

# A broker that restarts is away for some seconds, up to a minute where it recovers many messages. Meanwhile a worker
# looks for it every second and needs no help: one that is restarted would only have to load its models again. So it is
# well for so many seconds without its broker. After that something else is wrong, such as its address or its network.
BROKER_PATIENCE = 90.0


@dataclass(slots=True)
class Health:
    """Whether a worker can do its work, as far as it knows itself.

    It is well without its broker for `patience` seconds; `clock` tells seconds, and never goes back.
    """

    worker: Any
    patience: float = BROKER_PATIENCE
    clock: Callable[[], float] = time.monotonic
    connected: float = -math.inf  # when it was seen to have its broker, the last time

    def look(self) -> None:
        connection = getattr(self.worker.consumer, "connection", None)
        if connection is not None and connection.connected:
            self.connected = self.clock()

    def complaint(self) -> str | None:
        """What is wrong, in a sentence, if anything is."""
        watchdog: Watchdog | None = getattr(self.worker, "watchdog", None)  # none yet while the worker starts
        if watchdog is not None and (reason := watchdog.complaint()) is not None:
            return f"{reason}."
        if (seconds := self.clock() - self.connected) == math.inf:
            return "The worker is starting: it has not reached its broker yet."
        return f"The worker has been without its broker for {seconds:.0f} s." if seconds > self.patience else None
