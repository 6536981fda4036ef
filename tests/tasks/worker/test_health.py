"""The health that a worker reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from launch.rabbitmq import PrivateRabbitMQ
from tasks.worker.health import BROKER_PATIENCE, Health
from tasks.worker.watchdog import Watchdog
from tests.conftest import Spawn


def health(port: int) -> tuple[int, str]:
    answer = requests.get(f"http://127.0.0.1:{port}/healthz", timeout=30)
    return answer.status_code, answer.text


@pytest.mark.long
@pytest.mark.broker
def test_a_worker_is_well_without_its_broker_for_a_while_and_not_for_ever(
    new_broker: Callable[[], PrivateRabbitMQ],
    spawn: Spawn,
    eventually: Callable[..., None],
    models: Path,
    free_ports: Callable[[int], int],
) -> None:
    patient = free_ports(2)
    impatient = patient + 1
    with new_broker() as broker:
        environ = {"CELERY_BROKER_URL": broker.url, "TOLK_MODELS": str(models)}
        broker.stop()
        workers = [
            spawn(
                *("celery", "-A", "echo", "--workdir", "tests/tasks", "worker", "--without-mingle"),
                *("--loglevel=INFO", "--hostname", f"{port}@%h", "--metrics", f"127.0.0.1:{port}"),
                **environ,
                ECHO_PATIENCE=patience,
            )
            for port, patience in ((patient, str(BROKER_PATIENCE)), (impatient, "1"))
        ]
        eventually(lambda: all(worker.says("Cannot connect to") for worker in workers), 60)
        starting = (503, "The worker is starting: it has not reached its broker yet.\n")
        assert health(patient) == health(impatient) == starting
        broker.start()
        eventually(lambda: health(patient)[0] == health(impatient)[0] == 200, 60)
        eventually(lambda: all(worker.says(" ready.") for worker in workers))
        broker.stop()
        eventually(lambda: health(impatient)[0] == 503)
        assert health(impatient)[1].startswith("The worker has been without its broker for ")
        eventually(lambda: workers[0].says("Connection to broker lost"))
        assert health(patient)[0] == 200
        broker.start()
        eventually(lambda: health(impatient)[0] == 200, 60)
        assert [worker.stop() for worker in workers] == [0, 0]


def test_what_the_watchdog_does_not_like_is_not_well() -> None:
    step = [("b", 3.0), ("a", 61.0)]
    models: Any = SimpleNamespace(memory=SimpleNamespace(stalled=lambda: step), loading=lambda: None)
    connected = SimpleNamespace(connection=SimpleNamespace(connected=True))
    worker = SimpleNamespace(consumer=connected, watchdog=Watchdog(models, 60.0))
    health = Health(worker)
    health.look()
    assert health.complaint() == "Model a has been in one step for 61 s."
    step.pop()
    assert health.complaint() is None


def test_how_long_the_broker_has_been_away_is_told_from_when_it_was_last_there() -> None:
    now = [100.0]
    connection = SimpleNamespace(connected=True)
    worker = SimpleNamespace(consumer=SimpleNamespace(connection=None), app=SimpleNamespace())
    health = Health(worker, clock=lambda: now[0])
    health.look()
    assert health.complaint() == "The worker is starting: it has not reached its broker yet."
    worker.consumer.connection = connection
    health.look()
    connection.connected, now[0] = False, 100.0 + BROKER_PATIENCE
    health.look()
    assert health.complaint() is None
    now[0] += 1.0
    assert health.complaint() == f"The worker has been without its broker for {BROKER_PATIENCE + 1:.0f} s."
