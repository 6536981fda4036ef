"""The log of a worker: the form of telemetry.logs, with one line of our own for each task instead of Celery's two."""

from __future__ import annotations

import logging.config
from typing import Any

from telemetry import logs

TASK_LOGGERS = ("celery.app.trace", "celery.worker.strategy")  # where Celery logs that a task was received and ended
QUOTING_LOGGER = "celery.pool"  # where Celery logs, at debug, the arguments of a task, which contain people's texts


def set_up(conf: Any, loglevel: int | str, logfile: str | None) -> None:
    """Sets up the log at TOLK_LOG_LEVEL, or at `loglevel` if that is unset, written to `logfile` or to standard error.

    At info, Celery's own lines for each task are left out; at debug they are written, without the task's arguments.
    """
    level = conf.tolk_log_level or logging.getLevelName(loglevel)
    quiet = {"INFO": dict.fromkeys(TASK_LOGGERS, "warning"), "DEBUG": {QUOTING_LOGGER: "info"}}.get(level.upper(), {})
    logging.config.dictConfig(logs.config(conf.tolk_log_format, level, quiet, logfile))
