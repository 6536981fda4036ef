"""Faults that really happen, to processes that really run; what became of the requests is printed as a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launch.postgresql import PrivatePostgreSQL
from launch.rabbitmq import PrivateRabbitMQ
from tests.faults.house import House
from tests.faults.load import Row, table

TASKS = Path(__file__).parent.parent / "tasks"  # where the model is that answers without thinking
ROWS = pytest.StashKey[list[Row]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--all-faults"):
        deselected = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if rows := config.stash.get(ROWS, None):
        terminalreporter.section("faults")
        terminalreporter.write_line(table(rows))


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest) -> list[Row]:
    """The lines of the table so far."""
    return request.config.stash.setdefault(ROWS, [])


@pytest.fixture(scope="module")
def house(
    new_broker: Callable[[], PrivateRabbitMQ],
    new_postgresql: Callable[[], PrivatePostgreSQL],
    spawn: Callable[..., Any],
    eventually: Callable[..., None],
    free_port: Callable[[], int],
) -> Iterator[House]:
    with new_broker() as broker, new_postgresql() as postgresql:
        port = str(free_port())
        web = {"CELERY_BROKER_URL": broker.url, "DATABASE_URL": postgresql.url, "PORT": port}
        worker = {"CELERY_BROKER_URL": broker.url, "TOLK_STEP_TIMEOUT": "2"}
        command = ("celery", "-A", "echo", "--workdir", str(TASKS), "worker", "--loglevel=INFO", "--hostname")
        migrated = spawn("flask", "--app", "app", "database", "upgrade", **web)
        assert migrated.process.wait(60) == 0
        house = House(
            broker,
            postgresql,
            start_worker=lambda: spawn(*command, f"{time.monotonic_ns()}@%h", **worker),
            eventually=eventually,
            url=f"http://127.0.0.1:{port}",
            web=spawn("gunicorn", **web),
        )
        try:
            house.open(workers=2)
            eventually(house.is_ready, 60)
            yield house
        finally:
            house.close()
