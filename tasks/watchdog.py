"""What ends a worker whose model does not come back, so that it is started anew and its messages come back."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from typing import Any, NoReturn

from celery import bootsteps
from celery.utils.log import get_logger

from tasks.celery import app

PERIOD = 1.0  # seconds between one look and the next
EXIT_CODE = 70  # EX_SOFTWARE of BSD's sysexits.h

logger = get_logger(__name__)


class Watchdog(bootsteps.StartStopStep):
    """Looks after the loaded models for as long as the process lives.

    A thread that runs the model cannot be ended, only the process. Where such a thread holds the interpreter's lock,
    nothing of Python's runs any more: then faulthandler's timer goes off, a thread of C's that every look winds up.
    """

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        limit = float(worker.app.conf.tolk_step_timeout)
        threading.Thread(target=self.watch, args=(limit,), name="watchdog", daemon=True).start()

    def watch(self, limit: float) -> NoReturn:
        while True:
            time.sleep(PERIOD)
            for name, engine in app.engines.items():
                if (seconds := engine.stalled()) > limit:
                    logger.critical("Model %s has been in one step for %.0f s: the worker ends.", name, seconds)
                    os._exit(EXIT_CODE)
            if app.engines:  # to load them may take longer
                faulthandler.dump_traceback_later(limit + 2 * PERIOD, exit=True, file=2)  # standard error
