"""Real faults of real processes under load; the outcome of the requests is printed as a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.settings import REPOSITORY
from launch.postgresql import PrivatePostgreSQL
from launch.rabbitmq import PrivateRabbitMQ
from tests.faults.cluster import Cluster
from tests.faults.house import House
from tests.faults.load import Load, Row

RECOVERY = 10.0  # seconds after the end of a fault until every request is answered again
AFTERWARDS = 2.0  # seconds of load after that, in which nothing may fail

Fault = Callable[[Load], None]  # causes the fault, and returns when it has ended


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Adds a line to the table that is printed at the end."""
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
    """Builds a service with a number of workers whose Celery application is `app` in `directory`, and its broker."""
    with ExitStack() as stack:

        def build(app: str, directory: Path, workers: int, broker: Cluster | None = None) -> House:
            broker = stack.enter_context(broker or new_broker())
            postgresql = stack.enter_context(new_postgresql())
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
    """A service whose model returns every text as it is."""
    return build("echo", REPOSITORY / "tests" / "tasks", workers=2)


@pytest.fixture(scope="module")
def real_house(build: Callable[..., House]) -> House:
    """A service with the embedded model."""
    return build("tasks", REPOSITORY, workers=1)


@pytest.fixture
def trial(
    house: House,
    record_property: Callable[[str, object], None],
    eventually: Callable[..., None],
    request: pytest.FixtureRequest,
) -> Callable[..., Row]:
    """Causes a fault under load and adds its line to the table. No request may be lost or answered twice."""

    def run(name: str, fault: Fault, *, retry: bool = True, timeout: float = 4.0) -> Row:
        charged, kept = house.counted()
        began = time.monotonic()
        rate = 40.0 if request.config.getoption("--all-faults") else 15.0
        with Load(house.url, house.secret, request.node.name, rate, timeout, retry) as load:
            eventually(lambda: load.answered_since(began + 1))
            fault(load)
            ended = time.monotonic()
            eventually(lambda: load.answered_since(ended), RECOVERY)
            last = time.monotonic()
            eventually(lambda: load.answered_since(last + AFTERWARDS))

        def twice() -> int:
            """The number of requests that were charged or stored beyond those that were answered."""
            characters, answers = house.counted()
            answered = [each for each in load.outcomes if each.fate == "answered"]
            paid = round((characters - charged) / len(load.outcomes[0].text))
            return max(0, paid - len(answered)) + max(0, answers - kept - len(answered))

        eventually(lambda: twice() == 0 or time.monotonic() > last + 20)
        row = Row.of(name, load, ended, twice())
        record_property("fault", astuple(row))
        unclean = [each for each in load.outcomes if each.fate in ("lost", "wrong")]
        assert not unclean, unclean[:5]
        assert row.twice == 0
        assert row.recovery <= RECOVERY
        return row

    return run
