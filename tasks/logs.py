"""A worker's log: as telemetry.logs has it, a line for each task, and none of Celery's two."""

from __future__ import annotations

import logging.config
from typing import Any

from telemetry import logs

TASK_LOGGERS = ("celery.app.trace", "celery.worker.strategy")  # by these Celery says that a task came, and went
QUOTING_LOGGER = "celery.pool"  # by this it says at debug what a task is called with, which is people's texts


def set_up(conf: Any, loglevel: int | str, logfile: str | None) -> None:
    """From TOLK_LOG_LEVEL on, else from what --loglevel says. What Celery says of a task is heard where all is."""
    level = conf.tolk_log_level or logging.getLevelName(loglevel)
    quiet = {"INFO": dict.fromkeys(TASK_LOGGERS, "warning"), "DEBUG": {QUOTING_LOGGER: "info"}}.get(level.upper(), {})
    logging.config.dictConfig(logs.config(conf.tolk_log_format, level, quiet, logfile))
