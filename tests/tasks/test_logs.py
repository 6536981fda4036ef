from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks import logs

CELERYS = "celery.app.trace"
OURS = "tasks.worker.translate"
POOLS = "celery.pool"


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Restores the loggers after the test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in (*logs.TASK_LOGGERS, POOLS)}
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def heard(path: Path, given: str, option: int) -> set[tuple[str, str]]:
    """The loggers whose lines are written, with their levels, for a TOLK_LOG_LEVEL and a --loglevel."""
    for name in (*logs.TASK_LOGGERS, POOLS):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logs.set_up(SimpleNamespace(tolk_log_level=given, tolk_log_format="json"), option, str(path))
    for name in (OURS, CELERYS, POOLS):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "something")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    return {(line["logger"], line["level"]) for line in lines}


def test_of_a_task_celery_says_only_what_is_wrong(tmp_path: Path) -> None:
    assert heard(tmp_path / "log", "", logging.INFO) == {
        (OURS, "info"),
        (OURS, "warning"),
        (CELERYS, "warning"),
        (POOLS, "info"),
        (POOLS, "warning"),
    }


def test_where_all_is_heard_celery_is(tmp_path: Path) -> None:
    everything = {(name, level) for name in (OURS, CELERYS, POOLS) for level in ("debug", "info", "warning")}
    everything.remove((POOLS, "debug"))  # its lines quote texts
    assert heard(tmp_path / "log", "", logging.DEBUG) == everything


def test_the_environment_goes_before_the_option(tmp_path: Path) -> None:
    assert heard(tmp_path / "log", "error", logging.DEBUG) == set()
    assert heard(tmp_path / "log", "debug", logging.WARNING) >= {(OURS, "debug"), (CELERYS, "debug")}
