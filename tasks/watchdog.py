"""What ends a worker whose model does not come back, so that it is started anew and its messages come back."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from typing import NoReturn

from celery.utils.log import get_logger

from tasks.celery import Engines

PERIOD = 1.0  # seconds between one look and the next
AT_FIRST = 0.05  # until there is a model: work comes right after it, and the timer has to run by then
LOAD = 10  # loading a model may take so many times as long as a step
EXIT_CODE = 70  # EX_SOFTWARE of BSD's sysexits.h

logger = get_logger(__name__)


def start(engines: Engines, limit: float) -> None:
    """Looks after the models in memory, and the one that is being loaded, for as long as the process lives.

    A thread that runs a model cannot be ended, only the process. Where such a thread holds the interpreter's lock,
    nothing of Python's runs any more: then faulthandler's timer goes off, a thread of C's that every look winds up.
    """
    threading.Thread(target=watch, args=(engines, limit), name="watchdog", daemon=True).start()


def watch(engines: Engines, limit: float) -> NoReturn:
    while True:
        time.sleep(PERIOD if engines.loaded() else AT_FIRST)
        for name, seconds in engines.stalled():
            if seconds > limit:
                end(f"Model {name} has been in one step for {seconds:.0f} s")
        loading = engines.loading()
        if loading is not None and loading[1] > LOAD * limit:
            end(f"Model {loading[0]} has been loading for {loading[1]:.0f} s")
        if engines.loaded():  # to load the first ones may take longer
            patience = limit if loading is None else LOAD * limit
            faulthandler.dump_traceback_later(patience + 2 * PERIOD, exit=True, file=2)  # standard error


def end(reason: str) -> NoReturn:
    logger.critical("%s: the worker ends.", reason)
    os._exit(EXIT_CODE)
