from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from app.monitoring.metrics import STAGES, WebMetrics
from app.monitoring.status import QueueStatus, Status
from tasks.contract.worker import WorkerStatus
from telemetry.address import Address
from telemetry.tracing import Span

ADDRESS = Address("127.0.0.1", 9100)
DOCUMENT = 'mutation { translate(input: {texts: ["Bonjour.", "Salut."], target: "en"}) { model } }'


def samples(text: str) -> dict[str, float]:
    """By name, with the value of its one label, if any."""
    return {
        ",".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_request_is_counted_by_what_it_came_to_and_by_its_stages() -> None:
    metrics = WebMetrics(Status, ADDRESS, None)
    trace = Span("POST /graphql", 1.0, 0.75, {"texts": 3, "characters": 120})
    trace.children = [Span("translate by fr-en", 1.0, 0.5, children=[Span("admission", 1.0, 0.25)])]
    metrics.count(trace)
    metrics.count(Span("POST /graphql", 1.0, 0.25, {"texts": 1, "characters": 4, "code": "OVERLOADED"}))
    found = samples(metrics.text().decode())
    assert {name: value for name, value in found.items() if name.startswith("tolk_requests_total") and value} == {
        "tolk_requests_total,OK": 1,
        "tolk_requests_total,OVERLOADED": 1,
    }
    assert found["tolk_request_seconds_sum"] == 1.0
    assert (found["tolk_request_seconds_bucket,0.25"], found["tolk_request_seconds_bucket,1.0"]) == (1, 2)
    assert (found["tolk_texts_total"], found["tolk_characters_total"]) == (4, 124)
    assert {stage: found[f"tolk_stage_seconds_sum,{stage}"] for stage in STAGES} == {
        **dict.fromkeys(STAGES, 0.0),
        "admission": 0.25,
    }


def test_what_has_not_happened_yet_is_0() -> None:
    found = samples(WebMetrics(Status, ADDRESS, None).text().decode())
    assert found["tolk_requests_total,INTERNAL"] == 0
    assert found["tolk_stage_seconds_count,decode"] == 0


def test_queues_and_workers_are_as_the_status_says() -> None:
    status = Status(
        broker=True,
        queues={"a": QueueStatus("a", 7, 2), "b": QueueStatus("b", 0, 1)},
        workers={"w1": WorkerStatus((), active=1, processed=2, uptime=3.0)},
        dead_letters=4,
        in_flight=5,
        oldest={"a": time.time() - 60, "gone": time.time() - 30},
    )
    found = samples(WebMetrics(lambda: status, ADDRESS, None).text().decode())
    assert found["tolk_broker_up"] == 1
    assert (found["tolk_workers"], found["tolk_dead_letters"], found["tolk_in_flight"]) == (1, 4, 5)
    assert (found["tolk_queue_messages,a"], found["tolk_queue_consumers,a"]) == (7, 2)
    assert (found["tolk_queue_messages,b"], found["tolk_queue_consumers,b"]) == (0, 1)
    assert 60 <= found["tolk_queue_age_seconds,a"] < 90
    assert found["tolk_queue_age_seconds,b"] == 0
    assert 30 <= found["tolk_queue_age_seconds,gone"] < 60


def test_without_a_broker_the_oldest_is_known_still() -> None:
    found = samples(WebMetrics(lambda: Status(broker=False, oldest={"a": 0.0}), ADDRESS, None).text().decode())
    assert found["tolk_broker_up"] == 0
    assert found["tolk_queue_age_seconds,a"] > 1e9
    assert "tolk_dead_letters" not in found


def begun(web: Any) -> int:
    """How many workers have, and so end when they are told."""
    return int(web.service.log.read_text().count("INFO app: Settings"))


@pytest.fixture
def measured(
    start_gunicorn: Callable[..., Any], free_port: Callable[[], int], eventually: Callable[..., None]
) -> Callable[..., tuple[Any, str]]:
    """Starts a web tier whose two processes have begun, and says where its metrics are."""

    def start(**environ: str) -> tuple[Any, str]:
        address = f"127.0.0.1:{free_port()}"
        web = start_gunicorn(TOLK_METRICS=address, **environ)
        eventually(lambda: begun(web) == 2)
        return web, f"http://{address}"

    return start


def test_all_processes_count_together_at_an_address_of_its_own(
    measured: Callable[..., tuple[Any, str]], eventually: Callable[..., None]
) -> None:
    web, address = measured()

    def counted() -> float:
        return samples(requests.get(f"{address}/metrics", timeout=20).text)["tolk_request_seconds_count"]

    for _ in range(40):  # each on a connection of its own, so that both processes have some
        answer = requests.post(f"{web.url}/graphql", json={"query": DOCUMENT}, timeout=20)
        assert answer.json() == {"data": {"translate": {"model": "fr-en"}}}
    eventually(lambda: counted() == 40)  # a request is counted after its answer
    for _ in range(4):
        answer = requests.get(f"{address}/metrics", timeout=20)
        found = samples(answer.text)
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert (found["tolk_requests_total,OK"], found["tolk_texts_total"]) == (40, 80)
        assert found["tolk_request_seconds_count"] == 40
    for url in (f"{web.url}/metrics", f"{address}/graphql", f"{address}/"):
        assert requests.get(url, timeout=20).status_code == 404


def test_a_process_goes_on_with_what_a_dead_one_has_counted(
    measured: Callable[..., tuple[Any, str]], eventually: Callable[..., None], tmp_path: Path
) -> None:
    web, address = measured(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))

    def counts(number: int) -> bool:
        found = samples(requests.get(f"{address}/metrics", timeout=20).text)
        return found["tolk_requests_total,OK"] == found["tolk_request_seconds_count"] == number

    for number, end in enumerate([psutil.Process.kill, psutil.Process.terminate] * 2, 1):
        requests.post(f"{web.url}/graphql", json={"query": DOCUMENT}, timeout=20)
        eventually(partial(counts, number))  # it is counted after the answer
        end(min(web.workers, key=psutil.Process.create_time))
        eventually(partial(lambda workers: begun(web) == workers, 2 + number))
    assert counts(number)
    assert len(list(tmp_path.glob("*.db"))) == 4  # two of each of two processes


def test_metrics_outlive_their_directory(
    measured: Callable[..., tuple[Any, str]], eventually: Callable[..., None], tmp_path: Path
) -> None:
    """Who tidies up /tmp takes it. Then a worker dies."""
    web, address = measured(TMPDIR=str(tmp_path))
    [directory] = tmp_path.glob("tolk-metrics-*")
    shutil.rmtree(directory)
    web.workers[0].kill()
    eventually(lambda: begun(web) == 3)
    assert requests.get(f"{address}/metrics", timeout=20).ok
    assert web.answers()
    assert web.service.stop() == 0
    assert not directory.exists()


def test_an_operators_own_directory_is_made_and_left_alone(
    measured: Callable[..., tuple[Any, str]], tmp_path: Path
) -> None:
    directory = tmp_path / "run" / "metrics"
    web, address = measured(PROMETHEUS_MULTIPROC_DIR=str(directory))
    (directory / "theirs").touch()
    assert requests.get(f"{address}/metrics", timeout=20).ok
    assert web.service.stop() == 0
    assert {path.suffix for path in directory.iterdir()} >= {"", ".db"}


def test_metrics_are_nowhere_unless_they_are_wanted(start_gunicorn: Callable[..., Any]) -> None:
    assert requests.get(f"{start_gunicorn().url}/metrics", timeout=20).status_code == 404


@pytest.mark.parametrize("module", ["app", "app.routes", "app.broker.rpc"])
def test_nothing_of_prometheus_is_loaded_before_it_is_wanted(module: str) -> None:
    """Its client decides by the environment, as soon as it is imported, whether processes share files."""
    code = f"import sys, {module}; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
