"""Ends a worker whose model hangs, so that the worker is restarted and its messages are delivered again."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from dataclasses import dataclass
from typing import NoReturn

from celery.utils.log import get_logger

from tasks.worker.models import Models

PERIOD = 1.0  # seconds between two checks
LOAD = 10  # loading a model may take LOAD times as long as a step
EXIT_CODE = 70  # EX_SOFTWARE of BSD's sysexits.h

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Watchdog:
    """Watches the models in memory and the model that is being loaded, until the process ends.

    A thread that runs a model cannot be ended, only the whole process. If such a thread holds the interpreter's lock,
    no Python code runs any more, the watchdog's neither. For that case each check restarts the timer of faulthandler,
    a thread in C that ends the process when the timer expires.
    """

    models: Models
    limit: float  # seconds that a step may take
    period: float = PERIOD

    def start(self) -> None:
        threading.Thread(target=self.watch, name="watchdog", daemon=True).start()

    def watch(self) -> NoReturn:
        while True:
            time.sleep(self.period)
            try:
                self.look()
            except Exception:  # a model may hang later
                logger.exception("the watchdog could not look at the models")

    def look(self) -> None:
        if (reason := self.complaint()) is not None:
            end(reason)
        if self.models.memory.loaded():  # before that, loading the first models may take longer
            patience = self.limit if self.models.loading() is None else LOAD * self.limit
            faulthandler.dump_traceback_later(patience + 2 * self.period, exit=True, file=2)  # standard error

    def complaint(self) -> str | None:
        """Why the worker has to end, without a full stop; None if it need not."""
        for name, seconds in self.models.memory.stalled():
            if seconds > self.limit:
                return f"Model {name} has been in one step for {seconds:.0f} s"
        loading = self.models.loading()
        if loading is not None and loading[1] > LOAD * self.limit:
            return f"Model {loading[0]} has been loading for {loading[1]:.0f} s"
        return None


def end(reason: str) -> NoReturn:
    logger.critical("%s: the worker ends.", reason)
    os._exit(EXIT_CODE)
