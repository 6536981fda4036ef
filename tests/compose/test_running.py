"""A real Prometheus scrapes a running Tolk: every panel has results, and alerts fire for real faults."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.compose.prometheus import Prometheus, queries
from tests.compose.rabbitmq import ComposeRabbitMQ
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

PATIENCE = 90  # seconds; a busy machine may need many until a scrape takes less than two
MUTATION = 'mutation { translate(input: {texts: ["Je vais dormir.", "Il pleut."], target: "en"}) { model } }'


@dataclass
class Tolk:
    """A running service, and a Prometheus whose targets are its processes."""

    url: str
    worker: Any
    prometheus: Prometheus
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False  # pytest changes the environment while a thread of the test would read it

    def ask(self, document: str = MUTATION) -> Any:
        return self.session.post(f"{self.url}/graphql", json={"query": document}, timeout=30).json()


@pytest.fixture(scope="module")
def tolk(
    new_broker: Callable[[], Any],
    spawn: Callable[..., Any],
    start_worker: Callable[..., Any],
    start_web: Callable[..., str],
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Tolk]:
    secrets, plain = tmp_path_factory.mktemp("secrets"), new_broker()
    subprocess.run([sys.executable, "-m", "launch.secrets", secrets], cwd=REPOSITORY, check=True)
    broker = ComposeRabbitMQ(plain.directory, plain.log)
    broker.secrets, broker.management, broker.prometheus = secrets, free_port(), free_port()
    web, worker, flower = (f"127.0.0.1:{free_port()}" for _ in range(3))
    targets = {
        "tolk-web": [web],
        "tolk-worker": [worker],
        "rabbitmq": [f"127.0.0.1:{broker.prometheus}"],
        "flower": [flower],
    }
    directory = tmp_path_factory.mktemp("prometheus")
    # Reading the queues takes half a second, and the machine may be busy.
    with broker, Prometheus(directory, free_port(), targets, interval="2s") as prometheus:
        address = broker.located(Path(secrets, "web", "broker-url").read_text())
        spawn("celery", "-A", "tasks", "flower", f"--port={flower.rpartition(':')[2]}", CELERY_BROKER_URL=address)
        process = start_worker(address, TOLK_METRICS=worker)
        yield Tolk(start_web(address, TOLK_METRICS=web), process, prometheus)


@pytest.fixture(scope="module")
def load(tolk: Tolk, eventually: Callable[..., None]) -> Iterator[None]:
    """Requests translations without a break; begins when all targets are scraped."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            tolk.ask()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        eventually(tolk.prometheus.up, PATIENCE)
        yield
    finally:
        over.set()
        asking.join()


@pytest.mark.usefixtures("load")
@pytest.mark.parametrize("query", queries())
def test_a_panel_has_what_it_shows(query: str, tolk: Tolk, eventually: Callable[..., None]) -> None:
    expression, labels = queries()[query]
    if "gpu" in expression:  # without a GPU the query has no result, but must not fail
        tolk.prometheus.query(expression)
        return
    eventually(lambda: tolk.prometheus.query(expression), PATIENCE)
    assert all(series.keys() >= labels for series, _ in tolk.prometheus.query(expression))


@pytest.mark.usefixtures("load")
def test_what_prometheus_has_is_what_was_done(tolk: Tolk, eventually: Callable[..., None]) -> None:
    def number(query: str) -> float:
        return tolk.prometheus.query(query)[0][1]

    tolk.ask("{ nonsense }")
    eventually(lambda: number('tolk_requests_total{code="BAD_INPUT"}') == 1, PATIENCE)
    eventually(lambda: number('tolk_requests_total{code="OK"}') > 20, PATIENCE)
    eventually(lambda: number("tolk_tasks_total{code='OK'}") > 20, PATIENCE)
    assert number("tolk_workers") == 1
    assert number("tolk_broker_up") == 1
    eventually(lambda: not tolk.prometheus.firing(), PATIENCE)


def test_an_alert_tells_that_no_worker_is_left(tolk: Tolk, eventually: Callable[..., None]) -> None:
    assert tolk.worker.stop() == 0
    eventually(lambda: tolk.prometheus.firing("TolkNoWorker"), PATIENCE)
    eventually(
        lambda: {each["labels"]["job"] for each in tolk.prometheus.firing("TolkDown")} >= {"tolk-worker"}, PATIENCE
    )
