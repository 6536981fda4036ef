"""Faults that really happen, to processes that really run; what became of the requests is printed as a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.settings import REPOSITORY
from launch.postgresql import PrivatePostgreSQL
from launch.rabbitmq import PrivateRabbitMQ
from tests.faults.house import House


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Adds a line to what is printed at the end."""
    return partial(record_property, "soak")


@pytest.fixture(scope="module")
def build(
    new_broker: Callable[[], PrivateRabbitMQ],
    new_postgresql: Callable[[], PrivatePostgreSQL],
    spawn: Callable[..., Any],
    eventually: Callable[..., None],
    await_web: Callable[..., None],
    free_port: Callable[[], int],
) -> Iterator[Callable[..., House]]:
    """Builds a house of so many workers, whose Celery application is `app` in `directory`."""
    with ExitStack() as stack:

        def build(app: str, directory: Path, workers: int) -> House:
            broker, postgresql = stack.enter_context(new_broker()), stack.enter_context(new_postgresql())
            port = str(free_port())
            web = {"CELERY_BROKER_URL": broker.url, "DATABASE_URL": postgresql.url, "PORT": port}
            worker = {"CELERY_BROKER_URL": broker.url, "TOLK_STEP_TIMEOUT": "2"}
            command = ("celery", "-A", app, "--workdir", str(directory), "worker", "--loglevel=INFO", "--hostname")
            assert spawn("flask", "--app", "app", "database", "upgrade", **web).process.wait(60) == 0
            house = House(
                broker,
                postgresql,
                start_worker=lambda: spawn(*command, f"{time.monotonic_ns()}@%h", **worker),
                eventually=eventually,
                url=f"http://127.0.0.1:{port}",
                web=spawn("gunicorn", **web),
            )
            house.open(workers)
            stack.callback(house.close)
            await_web(house.url, house.web)
            return house

        yield build


@pytest.fixture(scope="module")
def house(build: Callable[..., House]) -> House:
    """With a model that answers without thinking."""
    return build("echo", REPOSITORY / "tests" / "tasks", workers=2)


@pytest.fixture(scope="module")
def real_house(build: Callable[..., House]) -> House:
    """With the embedded model."""
    return build("tasks", REPOSITORY, workers=1)
