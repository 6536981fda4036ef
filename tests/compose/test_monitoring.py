"""Alerts fire and panels have results: a real Prometheus scrapes metrics that are set by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.compose.metrics import METRICS, Target
from tests.compose.prometheus import Prometheus, alerts, queries

# For each alert the job and its metrics that make it fire, and the alert's summary.
FAULTS: dict[str, tuple[str, dict[str, float], str]] = {
    "TolkBrokerDown": ("tolk-web", {"tolk_broker_up": 0}, "RabbitMQ does not answer 127.0.0.1:"),
    "TolkNoWorker": ("tolk-web", {"tolk_workers": 0}, "No worker answers."),
    "TolkWorkerLost": ("tolk-web", {"tolk_workers": 1}, "Only 1 of the workers answer"),
    "TolkErrors": ("tolk-web", {"tolk_requests_total{INTERNAL}": 1000}, "% of the requests fail."),
    "TolkRefusing": ("tolk-web", {"tolk_requests_total{OVERLOADED}": 1000}, "% of the requests are refused"),
    "TolkBacklog": ("tolk-web", {"tolk_queue_age_seconds": 61}, "for 1m 1s in tolk.translate.fr-en."),
    "TolkSlow": ("tolk-web", {"tolk_request_seconds": 7}, "takes longer than "),
    "TolkDeadLetters": ("tolk-web", {"tolk_dead_letters": 3}, "3 messages are in the dead-letter queue."),
    "TolkNoJobWorker": ("tolk-web", {"tolk_job_workers": 0}, "1 jobs stand still: there is no results worker."),
    "TolkMemory": ("tolk-worker", {"tolk_memory_bytes": 1.9}, "use 95% of the memory"),
    "TolkGpuMemory": ("tolk-worker", {"tolk_gpu_memory_bytes": 1.96}, "uses 98% of its GPU's memory."),
}


@pytest.fixture(scope="module")
def tolk() -> Iterator[dict[str, Target]]:
    with ExitStack() as stack:
        yield {job: stack.enter_context(Target(job)) for job in METRICS}


@pytest.fixture(scope="module")
def prometheus(
    tolk: dict[str, Target],
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
    eventually: Callable[..., None],
) -> Iterator[Prometheus]:
    targets = {job: [target.address] for job, target in tolk.items()}
    with Prometheus(tmp_path_factory.mktemp("prometheus"), free_port(), targets) as running:
        eventually(running.up)
        yield running


@pytest.mark.parametrize("query", queries())
def test_a_panel_shows_something(query: str, prometheus: Prometheus, eventually: Callable[..., None]) -> None:
    expression, labels = queries()[query]
    eventually(lambda: any(not math.isnan(value) for _, value in prometheus.query(expression)))
    assert all(series.keys() >= labels for series, _ in prometheus.query(expression))


def test_no_alert_fires_while_nothing_is_wrong(prometheus: Prometheus, eventually: Callable[..., None]) -> None:
    eventually(lambda: prometheus.query("min(count_over_time(up[1m])) > 5"))
    assert not prometheus.firing()


def test_an_alert_for_everything_is_tried() -> None:
    assert {*FAULTS, "TolkDown"} == alerts().keys()


@pytest.mark.parametrize("alert", FAULTS)
def test_an_alert_fires_and_says_what_is_wrong(
    alert: str, tolk: dict[str, Target], prometheus: Prometheus, eventually: Callable[..., None]
) -> None:
    job, values, said = FAULTS[alert]
    assert not prometheus.firing(alert)
    healthy = tolk[job].values
    tolk[job].values = healthy | values
    try:
        eventually(lambda: prometheus.firing(alert))
        assert said in prometheus.firing(alert)[0]["annotations"]["summary"]
    finally:
        tolk[job].values = healthy


@pytest.mark.parametrize(
    ("job", "alert"), [("tolk-web", "TolkDown"), ("tolk-worker", "TolkDown"), ("rabbitmq", "TolkBrokerDown")]
)
def test_an_alert_fires_while_somebody_is_down(
    job: str, alert: str, tolk: dict[str, Target], prometheus: Prometheus, eventually: Callable[..., None]
) -> None:
    def told() -> list[str]:
        return [fired["annotations"]["summary"] for fired in prometheus.firing(alert) if fired["labels"]["job"] == job]

    assert not told()
    tolk[job].down = True
    try:
        eventually(told)
        assert "does not answer Prometheus." in told()[0]
    finally:
        tolk[job].down = False
    eventually(lambda: not told())
